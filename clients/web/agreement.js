// The agreement of two answers, by the rules of the protocol, so that moving a threshold needs no
// request. tests/web/test_agreement.py compares it with the server's own.

export const MATCH_IOU = 0.5;

// Label files of these sets differ in spelling but not in numbering.
const KNOWN_LABEL_SETS = ["coco-80", "coco-91", "imagenet-1k"];

// Names of one class in COCO's paper, its JSON files, YOLO's names and torchvision's.
const SAME = {
  aeroplane: "airplane",
  motorbike: "motorcycle",
  sofa: "couch",
  tvmonitor: "tv",
  television: "tv",
  hairdryer: "hairdrier",
  doughnut: "donut",
};

/** Return a label as it is compared: case, accents, separators and spelling aside. */
export function comparable(label) {
  // Of Latin, Greek and Cyrillic: other scripts' marks make other words.
  const bare = label.normalize("NFKD").replaceAll(/[\u0300-\u036f]/g, "").toLowerCase();
  const joined = bare.replaceAll(/[\s_\-/]+/g, "");
  return SAME[joined] ?? joined;
}

/**
 * Return the key that identifies a label across two models: ids if they agree, else names.
 *
 * The key is null for a label that the other model lacks, if the sets have their `labels`.
 */
export function labelKey(one, other) {
  const shared =
    one.name === other.name && one.size === other.size && KNOWN_LABEL_SETS.includes(one.name);
  if (shared) return ({ classId }) => classId;
  // A card without its labels has an empty list in the server's JSON.
  const [ours, theirs] = [one, other].map(({ labels }) =>
    labels?.length ? new Set(labels.map(comparable)) : null,
  );
  const isKnown = (name) => (ours?.has(name) ?? true) && (theirs?.has(name) ?? true);
  return ({ label }) => {
    const name = comparable(label);
    return isKnown(name) ? name : null;
  };
}

/** Return the indexes of the items that the other model cannot know. */
function unknown(items, key) {
  return new Set([...items.keys()].filter((index) => key(items[index]) === null));
}

/** Return if the best labels are equal, the share of common labels, and those labels. */
export function classificationAgreement(ours, theirs, key) {
  const theirKeys = theirs.map(key);
  const matches = ours
    .map((our, index) => ({ index, our: key(our) }))
    .filter(({ our }) => our !== null && theirKeys.includes(our))
    .map(({ index, our }) => ({ index, baselineIndex: theirKeys.indexOf(our) }));
  const both = new Set(matches.map(({ index }) => key(ours[index])));
  const [known, baselineKnown] = [ours, theirs].map((items) =>
    items.map(key).filter((one) => one !== null),
  );
  const longer = Math.max(known.length, baselineKnown.length);
  return {
    matches,
    sameTop1: known.length > 0 && known[0] === baselineKnown[0],
    topKOverlap: longer ? both.size / longer : 0,
    unknown: unknown(ours, key),
    baselineUnknown: unknown(theirs, key),
  };
}

/** Return the matching pairs of detections, highest IoU first, and their statistics. */
export function detectionAgreement(ours, theirs, key) {
  const pairs = ours.flatMap((our, index) =>
    theirs.flatMap((their, baselineIndex) => {
      if (key(our) === null || key(our) !== key(their)) return [];
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
  const [ourUnknown, theirUnknown] = [unknown(ours, key), unknown(theirs, key)];
  const [known, baselineKnown] = [
    ours.length - ourUnknown.size,
    theirs.length - theirUnknown.size,
  ];
  const total = known + baselineKnown;
  return {
    matches,
    unknown: ourUnknown,
    baselineUnknown: theirUnknown,
    matched: matches.length,
    onlyHere: known - matches.length,
    onlyInBaseline: baselineKnown - matches.length,
    meanIou: mean(matches.map((match) => match.iou)),
    meanScoreDifference: mean(
      matches.map((match) => Math.abs(ours[match.index].score - theirs[match.baselineIndex].score)),
    ),
    f1: total ? (2 * matches.length) / total : 1,
  };
}

/** Return how many labels of each side the other model lacks, as a sentence. */
export function incomparable({ unknown: ours, baselineUnknown }) {
  return `left out, as only one of both has their labels: ${ours.size} here, ${baselineUnknown.size} there`;
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
 * a `kind`: both, here or baseline. `missing` holds the items that only the baseline has. Items
 * that the other model cannot know have no kind and are not missing.
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
    const missing = new Set(
      theirs.filter((_, index) => !here.agreement.baselineUnknown.has(index)),
    );
    for (const [index, our] of here.items.entries()) {
      if (!here.agreement.unknown.has(index)) our.kind = "here";
    }
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
