package visavis;

/**
 * The model and the session that answered.
 *
 * @param model name of the model
 * @param version version of the model
 * @param precision number format of the weights: fp32, fp16 or int8
 * @param executionProvider ONNX Runtime's name, such as CPUExecutionProvider
 * @param randomWeights true if the weights are random, which makes the answer meaningless
 */
public record ServedBy(
    String model, int version, String precision, String executionProvider, boolean randomWeights) {}
