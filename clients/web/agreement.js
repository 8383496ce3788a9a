// The agreement of two answers, by the rules of the protocol, so that moving a threshold needs no
// request. tests/web/test_agreement.py compares it with the server's own.

export const MATCH_IOU = 0.5;

// Label files of these sets differ in spelling but not in numbering.
const KNOWN_LABEL_SETS = ["coco-80", "imagenet-1k"];

/** Return the key that identifies a label across two models: ids if they agree, else names. */
export function labelKey(one, other) {
  const shared =
    one.name === other.name && one.size === other.size && KNOWN_LABEL_SETS.includes(one.name);
  return shared ? ({ classId }) => classId : ({ label }) => label;
}

/** Return if the best labels are equal, the share of common labels, and those labels. */
export function classificationAgreement(ours, theirs, key) {
  const theirKeys = theirs.map(key);
  const matches = ours
    .map((our, index) => ({ index, baselineIndex: theirKeys.indexOf(key(our)) }))
    .filter(({ baselineIndex }) => baselineIndex >= 0);
  const both = new Set(matches.map(({ index }) => key(ours[index])));
  return {
    matches,
    sameTop1: key(ours[0]) === theirKeys[0],
    topKOverlap: both.size / Math.max(ours.length, theirs.length),
  };
}

/** Return the matching pairs of detections, highest IoU first, and their statistics. */
export function detectionAgreement(ours, theirs, key) {
  const pairs = ours.flatMap((our, index) =>
    theirs.flatMap((their, baselineIndex) => {
      if (key(our) !== key(their)) return [];
      const overlap = iou(our.box, their.box);
      return overlap >= MATCH_IOU ? [{ index, baselineIndex, iou: overlap }] : [];
    }),
  );
  pairs.sort((one, other) => other.iou - one.iou);
  const taken = new Set();
  const baselineTaken = new Set();
  const matches = pairs.filter(({ index, baselineIndex }) => {
    if (taken.has(index) || baselineTaken.has(baselineIndex)) return false;
    taken.add(index);
    baselineTaken.add(baselineIndex);
    return true;
  });
  const total = ours.length + theirs.length;
  return {
    matches,
    matched: matches.length,
    onlyHere: ours.length - matches.length,
    onlyInBaseline: theirs.length - matches.length,
    meanIou: mean(matches.map((match) => match.iou)),
    meanScoreDifference: mean(
      matches.map((match) => Math.abs(ours[match.index].score - theirs[match.baselineIndex].score)),
    ),
    f1: total ? (2 * matches.length) / total : 1,
  };
}

// In float32, step by step as the server computes it, so that ties are ties here too.
function iou(one, other) {
  const width = edge(Math.min(one.xMax, other.xMax), Math.max(one.xMin, other.xMin));
  const height = edge(Math.min(one.yMax, other.yMax), Math.max(one.yMin, other.yMin));
  const intersection = Math.fround(Math.max(width, 0) * Math.max(height, 0));
  const union = Math.fround(Math.fround(area(one) + area(other)) - intersection);
  return union > 0 ? Math.fround(intersection / union) : 0;
}

const area = (box) => Math.fround(edge(box.xMax, box.xMin) * edge(box.yMax, box.yMin));

const edge = (to, from) => Math.fround(Math.fround(to) - Math.fround(from));

const mean = (values) =>
  values.length ? values.reduce((sum, value) => sum + value) / values.length : null;

/**
 * Return each model's items, compared with the baseline's.
 *
 * shown: a list by model. agree: returns the agreement of a model's list with the baseline's.
 * Each item gets a `key`, equal for matching items, and, if there is a baseline to compare with,
 * a `kind`: both, here or baseline. `missing` holds the items that only the baseline has.
 */
export function sideBySide(shown, baseline, agree) {
  const laid = new Map();
  for (const [model, list] of shown) {
    const items = list.map((item, index) => ({ item, key: `${model} ${index}` }));
    laid.set(model, { items, missing: [], agreement: null });
  }
  const theirs = laid.get(baseline)?.items;
  if (!theirs || shown.size < 2) return laid;
  for (const their of theirs) their.kind = "baseline";
  for (const [model, here] of laid) {
    if (model === baseline) continue;
    here.agreement = agree(model, shown.get(model), shown.get(baseline));
    const missing = new Set(theirs);
    for (const our of here.items) our.kind = "here";
    for (const { index, baselineIndex, iou } of here.agreement.matches) {
      const their = theirs[baselineIndex];
      Object.assign(here.items[index], { kind: "both", key: their.key, iou });
      their.kind = "both";
      missing.delete(their);
    }
    here.missing = [...missing].map((their) => ({ ...their, kind: "baseline" }));
  }
  return laid;
}
