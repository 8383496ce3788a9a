package visavis;

/**
 * One label for the whole picture.
 *
 * @param classId index of the label in the model's label set
 * @param label its name
 * @param score its probability; range [0, 1]
 */
public record Classification(int classId, String label, float score) {}
