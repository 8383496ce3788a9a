package visavis;

/** What a model can do with a picture. */
public enum Task {
  /** One set of labels for the whole picture. */
  CLASSIFICATION,
  /** Boxes around objects, each with a label. */
  DETECTION
}
