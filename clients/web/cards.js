// The comparison table of all cards.

import { element } from "./elements.js";
import { known, MISSING, moment, parameters, pixels, provider, RANDOM, TASKS, yesOrNo } from "./words.js";

const VERIFIED = "verified";
const NOT_VERIFIED = "not verified (the file has none)";

// The facts of a card by row name.
const FACTS = {
  Organization: ({ facts }) => known(facts.organization),
  Category: ({ facts }) => known(facts.category),
  Modality: ({ facts }) => known(facts.modality),
  "Release date": ({ facts }) => known(facts.releaseDate),
  "Context window": ({ facts }) =>
    facts.contextWindow === undefined ? MISSING : `${facts.contextWindow} tokens`,
  Parameters: ({ facts }) => parameters(facts.parameterCount),
  Licence: ({ facts }) => known(facts.codeLicense),
  "Vision tasks": ({ tasks }) => tasks.map((task) => TASKS[task]).join(", ") || MISSING,
  "Real-time vision": ({ facts }) => yesOrNo(facts.realTime),
  // What our cards add.
  Architecture: ({ facts }) => known(facts.architecture),
  "Licence of the weights": ({ facts }) => known(facts.weightsLicense),
  Precision: ({ precision }) => precision,
  "Variant of": ({ variantOf }) => variantOf || MISSING,
  Accuracy: ({ accuracy }) => (accuracy ? measured(accuracy) : "not measured"),
  Input: ({ input }) => `${pixels(input.width, input.height)}: ${input.resize}`,
  "Label set": ({ labelSet }) => `${labelSet.name} (${labelSet.size})`,
  Thresholds: ({ detectionDefaults: of }) =>
    of ? `score ${of.scoreThreshold}, IoU ${of.iouThreshold}, at most ${of.maxDetections}` : MISSING,
  Version: ({ version, versions }) =>
    versions.length > 1 ? `${version} of ${versions.join(", ")}` : String(version),
  "Runs on": ({ executionProvider }) => provider(executionProvider),
  Weights: ({ provenance, randomWeights }) =>
    randomWeights ? RANDOM : known(provenance.weightsSource),
  "SHA-256 of the weights": ({ provenance }) => known(provenance.weightsSha256.slice(0, 12)),
  Exported: ({ provenance }) =>
    `${moment(provenance.exportedAt)}, by ${known(provenance.exporter)}`,
  Conversion: ({ provenance }) => provenance.conversion || MISSING,
  Digest: ({ verification }) => (verification.digest ? VERIFIED : NOT_VERIFIED),
  "Golden sample": ({ verification }) => (verification.goldenSample ? VERIFIED : NOT_VERIFIED),
};

/** Return a table with a column per model; rows in which models differ are marked. */
export function cardTable(cards) {
  const heads = cards.map(({ name }) => element("th", { scope: "col" }, name));
  const rows = Object.entries(FACTS).map(([fact, of]) => {
    const values = cards.map(of);
    const differs = new Set(values).size > 1;
    const mark = differs && element("span", { className: "differs", title: "differs" }, "≠");
    return element(
      "tr",
      { dataset: differs ? { differs: "" } : {} },
      element("th", { scope: "row" }, fact, mark),
      values.map((value) => element("td", {}, value)),
    );
  });
  return element(
    "table",
    {},
    element("thead", {}, element("tr", {}, element("td"), heads)),
    element("tbody", {}, rows),
  );
}

function measured({ metric, value, original, error, pictures }) {
  const points = (share) => (share * 100).toFixed(1);
  return (
    `${metric} ${points(value)} %, original ${points(original)} % ` +
    `(± ${points(error)}), on ${pictures} pictures`
  );
}
