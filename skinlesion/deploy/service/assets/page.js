// The page: takes an image and facts, asks the service on this machine, shows what it says.

import { draw, element, legend } from "./result.js";

const at = (id) => document.getElementById(id);
const FIELDS = ["age", "sex", "localization"];
const state = { model: null, image: null, token: "", asked: 0, explained: 0 };

start();

async function start() {
  listen();
  try {
    state.model = await (await ask("v1/model")).json();
  } catch (error) {
    return say(error.message, true);
  }
  fill();
  say("Choose an image.");
}

function listen() {
  at("form").addEventListener("submit", (event) => { event.preventDefault(); diagnose(); });
  at("file").addEventListener("change", () => take(at("file").files[0]));
  document.addEventListener("paste", (event) => take(imageIn(event.clipboardData)));
  const drop = at("drop");
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault(); // a miss must not open the file in place of the page
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop") take(imageIn(event.dataTransfer));
    });
  }
  for (const id of [...FIELDS, "risk"]) at(id).addEventListener("change", diagnose);
  at("explain").addEventListener("click", explain);
  at("opacity").addEventListener("input", fade);
}

function fill() {
  const { model } = state;
  for (const [id, words] of [["sex", model.sexes], ["localization", model.localizations]]) {
    at(id).append(...words.filter((word) => word !== "unknown").map((word) => new Option(word, word)));
  }
  at("diagnosis").append(...model.diagnoses.map((d) => new Option(d.name, d.code)));
  at("risk-label").hidden = model.risks.length < 2;
  at("risk").append(...model.risks.map((risk) => new Option(`${+(100 * risk).toFixed(1)} %`, risk)));
  at("thumbs").append(...model.diagnoses.map(thumb));
  at("about").textContent = `Bundle ${model.bundle}, ${model.members.length} members, ${model.precision}. ${model.licence}`;
}

function thumb({ code, name }) {
  const address = `examples/${code}.jpg`;
  const button = element("button", { type: "button", title: name, ariaPressed: "false" },
    element("img", { src: address, alt: "", loading: "lazy" }), code);
  button.setAttribute("aria-label", `synthetic ${name}`);
  button.addEventListener("click", async () => {
    take(await (await fetch(address)).blob());
    button.ariaPressed = "true";
  });
  return button;
}

function imageIn(transfer) {
  return [...(transfer?.files ?? [])][0];
}

function take(file) {
  if (!file || !state.model) return;
  state.image = file;
  URL.revokeObjectURL(at("image").src);
  at("image").src = URL.createObjectURL(file);
  for (const button of at("thumbs").children) button.ariaPressed = "false";
  at("diagnose").disabled = false;
  diagnose().then(() => at("seen").scrollIntoView({ block: "nearest" })); // on a phone it lies below the form
}

async function diagnose() {
  if (!state.image || !at("form").reportValidity()) return;
  const number = ++state.asked;
  forgetMap();
  say("Asking the model");
  const start = performance.now();
  try {
    const answer = await (await ask("v1/predict", form({ effects: "true", risk: at("risk").value }))).json();
    if (number !== state.asked) return; // another question has been asked meanwhile
    draw(answer, state.model);
    at("diagnosis").value = answer.images[0].predicted;
    at("seen").hidden = at("result").hidden = false;
    say(`Answered in ${((performance.now() - start) / 1000).toFixed(1)} s.`);
  } catch (error) {
    if (number !== state.asked) return;
    at("seen").hidden = at("result").hidden = true;
    say(error.message, true);
  }
}

async function explain() {
  const number = ++state.explained;
  at("explain").disabled = true;
  say("Covering one part of the image after another; this takes some seconds");
  try {
    const answer = await ask("v1/explain", form({ layer: "map", diagnosis: at("diagnosis").value }));
    const picture = await answer.blob();
    if (number !== state.explained) return;
    at("map").src = URL.createObjectURL(picture);
    legend(at("legend"), answer.headers, Object.fromEntries(state.model.diagnoses.map((d) => [d.code, d])));
    at("map").alt = at("legend").textContent;
    at("map").hidden = at("legend").hidden = at("opacity-label").hidden = false;
    fade();
    say("The overlay shows which parts the answer rests on.");
  } catch (error) {
    say(error.message, true);
  } finally {
    at("explain").disabled = false;
  }
}

function forgetMap() {
  state.explained += 1;
  URL.revokeObjectURL(at("map").src);
  at("map").removeAttribute("src");
  at("map").hidden = at("legend").hidden = at("opacity-label").hidden = true;
}

function fade() {
  at("map").style.opacity = at("opacity").value / 100;
}

function form(more) {
  const data = new FormData();
  data.append("image", state.image, "image"); // the file's own name stays here
  for (const [name, value] of [...FIELDS.map((id) => [id, at(id).value]), ...Object.entries(more)]) {
    if (value !== "") data.append(name, value);
  }
  return data;
}

async function ask(address, body) {
  const headers = state.token ? { Authorization: `Bearer ${state.token}` } : {};
  let answer;
  try {
    answer = await fetch(address, body ? { method: "POST", body, headers } : { headers });
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    await askForToken();
    return ask(address, body);
  }
  const problem = await answer.json();
  throw new Error(`${problem.detail[0].toUpperCase()}${problem.detail.slice(1)}.`);
}

function askForToken() {
  const dialog = at("ask");
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      state.token = at("token").value;
      at("token").value = "";
      resolve();
    }, { once: true });
  });
}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}
