package visavis;

/**
 * One model's answer in a stream.
 *
 * @param task the task
 * @param answer the answer, without its agreement
 */
public record StreamedAnswer(Task task, ModelAnswer answer) {}
