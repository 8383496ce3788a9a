package visavis;

/**
 * One object found in a picture.
 *
 * @param box where it is
 * @param classId index of the label in the model's label set
 * @param label its name
 * @param score its probability; range [0, 1]
 */
public record Detection(Box box, int classId, String label, float score) {}
