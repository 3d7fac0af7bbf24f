// Draws an answer of /v1/predict. All text is inserted as text, never as HTML.

const MIN_EFFECT = 0.001; // probability: smaller effects are shown as none
const byId = (id) => document.getElementById(id);
const percent = (p) => (p >= 0.0995 || p === 0 ? `${Math.round(100 * p)} %`
  : p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);
const points = (p) => `${(100 * p).toFixed(1)} percentage points`;
const byCode = (model) => Object.fromEntries(model.diagnoses.map((diagnosis) => [diagnosis.code, diagnosis]));

export function element(name, properties = {}, ...children) {
  const created = Object.assign(document.createElement(name), properties);
  created.append(...children);
  return created;
}

export function factName(name) {
  const words = name === "localization" ? "lesion site" : name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

export function drawPlaceholder(model) {
  byId("empty-bars").replaceChildren(...model.diagnoses.map((diagnosis) => barRow(diagnosis, 0, "", "–")));
  byId("empty-effects").replaceChildren(...model.facts.map(({ name }) => effectRow(`${factName(name)}: –`, 0)));
  byId("empty-members").replaceChildren(...memberRows(model.members.map((name) => [name, "–", "–"]), "Probability"));
}

export function drawResult(answer, model) {
  const [image] = answer.images;
  const diagnoses = byCode(model);
  const top = diagnoses[image.predicted];
  byId("warning").textContent = image.out_of_distribution?.flag
    ? "This image is unlike the training images. Disregard the result below."
    : "";
  const [[likeliest, most]] = ranked(image);
  byId("headline").replaceChildren(element("strong", {}, top.name), `, ${percent(image.probabilities[top.code])}`,
    ...category(top, ", "), most === image.probabilities[top.code] ? "" : element("small", {},
      `The models' vote decides; after calibration ${diagnoses[likeliest].name} is more probable (${percent(most)}).`));
  const names = image.prediction_set?.map((code) => diagnoses[code].name);
  byId("prediction-set").textContent = names
    ? `Not ruled out, at an error rate of ${percent(image.risk)}: ${names.join(names.some((name) => name.includes(",")) ? "; " : ", ")}.`
    : "This bundle has no prediction sets; only the probabilities tell how certain the result is.";
  drawBars(image, diagnoses);
  drawEffects(image, answer.facts, top);
  drawMembers(image, diagnoses);
}

export function drawLegend(legend, headers, model) {
  const largest = Number(headers.get("X-Largest-Effect"));
  const { name } = byCode(model)[headers.get("X-Diagnosis")];
  if (largest < MIN_EFFECT) {
    legend.textContent = `Covering any part of the image changes the probability of ${name} by less than ${points(MIN_EFFECT)}.`;
    return;
  }
  legend.replaceChildren(
    element("span", { className: "supports" }), ` supports ${name}, `,
    element("span", { className: "contradicts" }), " speaks against it. ",
    `At full colour, covering the region changes its probability by ${points(largest)}.`,
  );
}

function ranked(image) {
  return Object.entries(image.probabilities).sort((a, b) => b[1] - a[1]);
}

function drawBars(image, diagnoses) {
  byId("bars").replaceChildren(...ranked(image).map(([code, p]) => {
    const note = image.prediction_set?.includes(code) ? "not ruled out" : "";
    return barRow(diagnoses[code], p, note, percent(p));
  }));
}

function barRow(diagnosis, p, note, value) {
  const words = [...category(diagnosis, ""), note].filter((word) => word);
  const tag = words.length ? element("span", { className: "note" }, "(", ...words.flatMap((word, k) => (k ? [", ", word] : word)), ")") : "";
  const filled = element("span");
  filled.style.setProperty("--share", p);
  return element("li", {}, element("span", {}, diagnosis.name, " ", tag), element("span", {}, value),
    element("div", { className: "bar", ariaHidden: "true" }, filled));
}

function category(diagnosis, before) {
  if (diagnosis.category === "unknown") return [];
  return [before, element("span", { className: diagnosis.category }, diagnosis.category)];
}

function drawEffects(image, facts, top) {
  if (!image.effects?.length) {
    byId("effects").textContent = "No patient data was given; the result rests on the image alone.";
    return;
  }
  const rows = image.effects.map(({ fact, without }) => {
    const change = image.probabilities[top.code] - without[top.code];
    const effect = Math.abs(change) < MIN_EFFECT / 2 ? `no change for ${top.name}`
      : `${change > 0 ? "+" : "−"}${points(Math.abs(change))} for ${top.name}`;
    return effectRow(`${factName(fact)} ${facts[fact]}: ${effect}`, change);
  });
  const scale = "Compared with an unknown value. Each bar ends at 50 percentage points on either side.";
  byId("effects").replaceChildren(...rows, element("p", { className: "note" }, scale));
}

function effectRow(text, change) {
  const filled = element("span", { className: change > 0 ? "more" : "less" });
  filled.style.setProperty("--share", Math.min(1, Math.abs(change) * 2));
  return element("div", { className: "effect" }, text, element("div", { className: "change", ariaHidden: "true" }, filled));
}

function drawMembers(image, diagnoses) {
  const agreeing = Math.round(image.agreement * image.members.length);
  const isCalibrated = Object.entries(image.uncalibrated).some(([code, p]) => Math.abs(p - image.probabilities[code]) > 1e-4);
  byId("agreement").textContent =
    `${agreeing} of ${image.members.length} ${image.members.length === 1 ? "model has" : "models have"} ${diagnoses[image.predicted].name} as ${image.members.length === 1 ? "its" : "their"} top diagnosis.` +
    (isCalibrated ? " Their probabilities are not calibrated; the result above is." : "");
  const rows = image.members.map(({ name, predicted, probabilities }) => [
    name,
    `${diagnoses[predicted].name} (${percent(probabilities[predicted]).replace(" ", "\u00a0")})`,
    percent(probabilities[image.predicted]),
  ]);
  byId("members").replaceChildren(...memberRows(rows, `Probability of ${image.predicted}`));
}

function memberRows(rows, last) {
  const row = (name, texts) => element("tr", {},
    ...texts.map((text, k) => element(name, { className: k === 2 ? "number" : "", ...(name === "th" && { scope: "col" }) }, text)));
  return [element("thead", {}, row("th", ["Model", "Top diagnosis", last])),
    element("tbody", {}, ...rows.map((texts) => row("td", texts)))];
}
