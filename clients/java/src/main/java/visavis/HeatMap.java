package visavis;

/**
 * How much each cell of a grid over a part of the picture speaks for a label.
 *
 * @param classId index of the label in the model's label set
 * @param label name of the label
 * @param width number of columns
 * @param height number of rows
 * @param values one value for each cell, row by row, from the top; classifiers: the class activation
 *     map, of any range; detectors: scores in [0, 1]
 * @param min the smallest value
 * @param max the largest value
 * @param area the part of the picture that the cells cover; may exceed it by a part of a cell
 */
public record HeatMap(
    int classId, String label, int width, int height, float[] values, float min, float max,
    Box area) {}
