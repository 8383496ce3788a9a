// Minimal JSON for the scenario's output; values are strings that already hold JSON.
#pragma once

#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace json {

inline std::string Text(std::string_view text) {
  std::string quoted = "\"";
  for (const unsigned char letter : text) {
    if (letter == '"' || letter == '\\') {
      quoted += '\\';
      quoted += letter;
    } else if (letter < 0x20) {
      char escape[7];
      std::snprintf(escape, sizeof escape, "\\u%04x", letter);
      quoted += escape;
    } else {
      quoted += letter;
    }
  }
  return quoted + '"';
}

inline std::string Bool(bool value) { return value ? "true" : "false"; }

// A number with the given number of decimals.
inline std::string Rounded(double value, int decimals) {
  const double scale = std::pow(10, decimals);
  std::ostringstream text;
  text << std::round(value * scale) / scale;
  return text.str();
}

using Field = std::pair<std::string_view, std::string>;

inline std::string Object(std::initializer_list<Field> fields) {
  std::string text;
  for (const auto& [key, value] : fields) {
    text += (text.empty() ? "{" : ",") + Text(key) + ':' + value;
  }
  return text + '}';
}

// An array of the results of a function for each item.
template <typename Items, typename Function>
std::string Array(const Items& items, Function&& json_of) {
  std::string text;
  for (const auto& item : items) {
    text += (text.empty() ? "[" : ",") + json_of(item);
  }
  return text.empty() ? "[]" : text + ']';
}

}  // namespace json
