package scenario;

import java.lang.reflect.RecordComponent;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Writes records as one line of JSON, with names in snake_case. */
final class Json {
  private Json() {}

  /** Returns the JSON of a record, list, string, enum, number, boolean or null. */
  static String of(Object value) {
    if (value instanceof Record record) {
      return Stream.of(record.getClass().getRecordComponents())
          .map(part -> quoted(snakeCase(part.getName())) + ":" + of(read(record, part)))
          .collect(Collectors.joining(",", "{", "}"));
    }
    if (value instanceof List<?> list) {
      return list.stream().map(Json::of).collect(Collectors.joining(",", "[", "]"));
    }
    if (value instanceof String || value instanceof Enum<?>) {
      return quoted(value.toString());
    }
    return String.valueOf(value);
  }

  private static Object read(Record record, RecordComponent part) {
    try {
      return part.getAccessor().invoke(record);
    } catch (ReflectiveOperationException error) {
      throw new IllegalArgumentException("can't be read: " + part, error);
    }
  }

  private static String snakeCase(String name) {
    return name.replaceAll("[A-Z]", "_$0").toLowerCase(Locale.ROOT);
  }

  private static String quoted(String text) {
    StringBuilder quoted = new StringBuilder("\"");
    for (char c : text.toCharArray()) {
      if (c < ' ') {
        quoted.append(String.format("\\u%04x", (int) c));
      } else {
        quoted.append(c == '"' || c == '\\' ? "\\" : "").append(c);
      }
    }
    return quoted.append('"').toString();
  }
}
