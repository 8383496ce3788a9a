package visavis;

/**
 * Durations of the stages of a request, in milliseconds.
 *
 * @param queueMs waiting in the queue
 * @param decodeMs decoding the picture; 0 in the answers of a comparison, which share one decode
 * @param preprocessMs converting pixels to the model's input
 * @param inferenceMs running the session
 * @param postprocessMs converting the output to labels or boxes
 * @param totalMs from the arrival of the request to the answer
 */
public record Timings(
    double queueMs, double decodeMs, double preprocessMs, double inferenceMs, double postprocessMs,
    double totalMs) {}
