// Draws an answer of /v1/predict. Text goes in as text, never as HTML.

const percent = (p) => (p >= 0.0995 || p === 0 ? `${Math.round(100 * p)} %` : `${(100 * p).toFixed(1)} %`);
const FACTS = { age: "age", sex: "sex", localization: "place" };

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function draw(answer, model) {
  const [image] = answer.images;
  const named = Object.fromEntries(model.diagnoses.map((d) => [d.code, d]));
  drawWarning(image);
  drawHeadline(image, named);
  drawSet(image, named);
  drawBars(image, named);
  drawEffects(image, answer.facts, named);
  drawMembers(image, named);
}

export function legend(figure, headers, named) {
  const largest = Number(headers.get("X-Largest-Effect"));
  const name = named[headers.get("X-Diagnosis")].name;
  const text = largest < 0.001
    ? `Covering any part of the image changes the probability of ${name} by less than 0.1 points: nothing to show.`
    : ` speaks for ${name}, `;
  if (largest < 0.001) return figure.replaceChildren(text);
  figure.replaceChildren(
    element("span", { className: "for" }), text, element("span", { className: "against" }),
    ` against it. Full colour: covering this part changes its probability by ${(100 * largest).toFixed(1)} points.`,
  );
}

function drawWarning(image) {
  const odd = image.out_of_distribution?.flag;
  document.getElementById("warning").textContent = odd
    ? "This image does not look like the dermoscopic images that the model was trained on. The answer below means nothing then."
    : "";
}

function drawHeadline(image, named) {
  const p = image.probabilities[image.predicted];
  document.getElementById("headline").replaceChildren(
    element("strong", {}, named[image.predicted].name), `, ${percent(p)}, `, category(named[image.predicted]),
  );
}

function drawSet(image, named) {
  const place = document.getElementById("set");
  if (!image.prediction_set) {
    place.textContent = "This bundle has no prediction sets: how sure it is, only the probabilities say.";
    return;
  }
  const names = image.prediction_set.map((code) => named[code].name);
  const listed = names.length === 1 ? `all but ${names[0]} is ruled out`
    : `${names.slice(0, -1).join(", ")} or ${names.at(-1)} cannot be ruled out`;
  place.textContent = `At a risk of ${percent(image.risk)}, ${listed}.`;
}

function drawBars(image, named) {
  const ranked = Object.entries(image.probabilities).sort((a, b) => b[1] - a[1]);
  document.getElementById("bars").replaceChildren(...ranked.map(([code, p]) => {
    const row = element("li", {}, element("span", {}, named[code].name, " ", tag(named[code], image)),
      element("span", {}, percent(p)), bar(p));
    row.dataset.code = code;
    return row;
  }));
}

function tag(diagnosis, image) {
  const inSet = image.prediction_set?.includes(diagnosis.code) ? ", in the set" : "";
  return element("span", { className: "tag" }, "(", category(diagnosis), `${inSet})`);
}

function category(diagnosis) {
  return element("span", { className: diagnosis.category }, diagnosis.category);
}

function bar(p) {
  const filled = element("span");
  filled.style.setProperty("--share", p);
  return element("div", { className: "bar", ariaHidden: "true" }, filled);
}

function drawEffects(image, facts, named) {
  const place = document.getElementById("effects");
  const name = named[image.predicted].name;
  if (!image.effects?.length) {
    place.textContent = "Nothing is known of the patient, so the image alone speaks.";
    return;
  }
  place.replaceChildren(...image.effects.map((effect) => {
    const change = image.probabilities[image.predicted] - effect.without[image.predicted];
    const points = `${Math.abs(100 * change).toFixed(1)} points`;
    const verb = Math.abs(change) < 0.0005 ? "does not change" : change > 0 ? `adds ${points} to` : `takes ${points} from`;
    const text = `${FACTS[effect.fact]} ${facts[effect.fact]} ${verb} the probability of ${name}`;
    const filled = element("span", { className: change > 0 ? "more" : "less" });
    filled.style.setProperty("--share", Math.min(1, Math.abs(change) * 2));
    return element("div", { className: "effect" }, text, element("div", { className: "change", ariaHidden: "true" }, filled));
  }), element("p", { className: "tag" }, "Against not knowing this fact; the bars end at 50 points to either side."));
}

function drawMembers(image, named) {
  const agreeing = Math.round(image.agreement * image.members.length);
  document.getElementById("agreement").textContent =
    `${agreeing} of ${image.members.length} have ${named[image.predicted].name} as their likeliest diagnosis.` +
    (isCalibrated(image) ? " Their probabilities are as they come; the answer is calibrated after the vote." : "");
  const head = element("tr", {}, element("th", { scope: "col" }, "member"), element("th", { scope: "col" }, "its likeliest"),
    element("th", { scope: "col", className: "number" }, "its probability"),
    element("th", { scope: "col", className: "number" }, `of ${image.predicted}`));
  const rows = image.members.map((member) => element("tr", {},
    element("td", {}, member.name), element("td", {}, named[member.predicted].name),
    element("td", { className: "number" }, percent(member.probabilities[member.predicted])),
    element("td", { className: "number" }, percent(member.probabilities[image.predicted]))));
  document.getElementById("members").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
}

function isCalibrated(image) {
  return Object.entries(image.uncalibrated).some(([code, p]) => Math.abs(p - image.probabilities[code]) > 1e-4);
}
