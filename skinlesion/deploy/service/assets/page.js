// The page: takes an image and patient data, sends them to the service, shows the result.

import { drawLegend, drawPlaceholder, drawResult, element, factName } from "./result.js";

const byId = (id) => document.getElementById(id);
// The numbers count requests, so that an answer that a newer request has overtaken is dropped.
const state = { model: null, image: null, token: "", analysis: 0, explanation: 0 };

start();

async function start() {
  addListeners();
  try {
    state.model = await (await send("v1/model")).json();
  } catch (error) {
    return setStatus(error.message, true);
  }
  showModel(state.model);
  setStatus("Choose an image.");
}

function addListeners() {
  byId("form").addEventListener("submit", (event) => { event.preventDefault(); analyse(); });
  byId("file").addEventListener("change", () => setImage(byId("file").files[0]));
  document.addEventListener("paste", (event) => setImage(firstFile(event.clipboardData)));
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault(); // a file dropped beside the target must not replace the page
      byId("drop").classList.toggle("over", name === "dragover");
      if (name === "drop") setImage(firstFile(event.dataTransfer));
    });
  }
  for (const id of ["patient", "risk"]) byId(id).addEventListener("change", analyse);
  byId("explain").addEventListener("click", explain);
  byId("opacity").addEventListener("input", setOpacity);
}

function showModel(model) {
  byId("patient").append(...model.facts.map(factField));
  byId("diagnosis").append(...model.diagnoses.map(({ name, code }) => new Option(name, code)));
  byId("risk-label").hidden = model.risks.length < 2;
  byId("risk").append(...model.risks.map((risk) => new Option(`${+(100 * risk).toFixed(1)} %`, risk)));
  byId("examples").append(...model.diagnoses.filter(({ code }) => model.examples.includes(code)).map(exampleButton));
  byId("examples").parentElement.hidden = !model.examples.length;
  byId("about").textContent = `Bundle ${model.bundle}, ${model.members.length} model${model.members.length === 1 ? "" : "s"}, ${model.precision}. ${model.licence[0].toUpperCase()}${model.licence.slice(1)}`;
  drawPlaceholder(model);
}

function factField({ name, kind, unit, low, high, categories }) {
  const options = categories.filter((value) => value !== "unknown").map((value) => new Option(value, value));
  const range = { type: "number", min: low ?? "", max: high ?? "", step: "any", inputMode: "decimal" };
  const field = kind === "number" ? element("input", range) : element("select", {}, new Option("unknown", ""), ...options);
  Object.assign(field, { id: `fact-${name}`, name });
  return element("label", {}, `${factName(name)}${unit && ` (${unit})`} `, field);
}

function exampleButton({ code, name }) {
  const address = `examples/${code}.jpg`;
  const button = element("button", { type: "button", title: name, ariaPressed: "false" },
    element("img", { src: address, alt: "", loading: "lazy" }), code);
  button.setAttribute("aria-label", `synthetic ${name}`);
  button.addEventListener("click", async () => {
    setImage(await (await fetch(address)).blob());
    button.ariaPressed = "true";
  });
  return button;
}

function firstFile(transfer) {
  return [...(transfer?.files ?? [])][0];
}

function setImage(file) {
  if (!file || !state.model) return;
  state.image = file;
  URL.revokeObjectURL(byId("image").src);
  byId("image").src = URL.createObjectURL(file);
  for (const button of byId("examples").children) button.ariaPressed = "false";
  byId("analyse").disabled = false;
  analyse().then(() => byId("image-panel").scrollIntoView({ block: "nearest" })); // on a phone it is below the form
}

async function analyse() {
  if (!state.image || !byId("form").reportValidity()) return;
  const number = ++state.analysis;
  clearMap();
  setStatus("Analysing…");
  const start = performance.now();
  try {
    const answer = await (await send("v1/predict", formData({ effects: "true", risk: byId("risk").value }))).json();
    if (number !== state.analysis) return;
    drawResult(answer, state.model);
    byId("diagnosis").value = answer.images[0].predicted;
    showResult(true);
    setStatus(`Analysed in ${((performance.now() - start) / 1000).toFixed(1)} s.`);
  } catch (error) {
    if (number !== state.analysis) return;
    showResult(false);
    setStatus(error.message, true);
  }
}

async function explain() {
  const number = ++state.explanation;
  byId("explain").disabled = true;
  setStatus("Covering one part of the image after another; this takes a few seconds…");
  try {
    const answer = await send("v1/explain", formData({ layer: "map", diagnosis: byId("diagnosis").value }));
    const picture = await answer.blob();
    if (number !== state.explanation) return;
    byId("map").src = URL.createObjectURL(picture);
    drawLegend(byId("legend"), answer.headers, state.model);
    byId("map").alt = byId("legend").textContent;
    byId("map").hidden = byId("legend").hidden = byId("opacity-label").hidden = false;
    setOpacity();
    setStatus("The map is drawn over the image.");
  } catch (error) {
    if (number === state.explanation) setStatus(error.message, true);
  } finally {
    byId("explain").disabled = false;
  }
}

function showResult(isShown) {
  byId("placeholder").hidden = isShown;
  byId("image-panel").hidden = byId("result").hidden = !isShown;
}

function clearMap() {
  state.explanation += 1;
  URL.revokeObjectURL(byId("map").src);
  byId("map").removeAttribute("src");
  byId("map").hidden = byId("legend").hidden = byId("opacity-label").hidden = true;
}

function setOpacity() {
  byId("map").style.opacity = byId("opacity").value / 100;
}

function formData(options) {
  const data = new FormData();
  data.append("image", state.image, "image"); // without the name of the file
  const facts = state.model.facts.map(({ name }) => [name, byId(`fact-${name}`).value]);
  const fields = [...facts, ...Object.entries(options)];
  for (const [name, value] of fields) if (value !== "") data.append(name, value);
  return data;
}

async function send(address, body) {
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
    return send(address, body);
  }
  const { detail } = await answer.json();
  throw new Error(`${detail[0].toUpperCase()}${detail.slice(1)}.`);
}

function askForToken() {
  const dialog = byId("token-dialog");
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      state.token = byId("token").value;
      byId("token").value = "";
      resolve();
    }, { once: true });
  });
}

function setStatus(text, isError = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("error", isError);
}
