// Runs the scenario of clients/README.md against a visavis server.

#include <visavis/client.h>

#include <chrono>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>

#include "json.h"

namespace {

// Prints one line of JSON.
void Say(std::initializer_list<json::Field> fields) {
  std::cout << json::Object(fields) << std::endl;
}

std::string TaskName(visavis::Task task) {
  return task == visavis::Task::kClassification ? "classification" : "object detection";
}

// The error of a call that must fail.
template <typename Call>
visavis::Error Refusal(Call&& call) {
  try {
    call();
  } catch (const visavis::Error& error) {
    return error;
  }
  throw std::logic_error("a call that must fail did not");
}

void List(const visavis::Client& client) {
  Say({{"step", json::Text("list")},
       {"models", json::Array(client.ListModels(), [](const visavis::Model& card) {
          return json::Object({{"name", json::Text(card.name)},
                               {"task", json::Text(TaskName(card.tasks.at(0)))},
                               {"precision", json::Text(card.precision)},
                               {"random_weights", json::Bool(card.random_weights)}});
        })}});
}

void Classify(const visavis::Client& client, const visavis::Image& picture) {
  visavis::ClassifyOptions options;
  options.top_k = 3;
  const visavis::ClassifyResult answer = client.Classify(picture, "resnet50", options);
  Say({{"step", json::Text("classify")},
       {"model", json::Text(answer.served_by.model)},
       {"labels", json::Array(answer.classifications, [](const visavis::Classification& found) {
          return json::Object({{"label", json::Text(found.label)},
                               {"score", json::Rounded(found.score, 4)}});
        })}});
}

void Detect(const visavis::Client& client, const visavis::Image& picture) {
  visavis::DetectOptions options;
  options.score_threshold = 0.4f;
  const visavis::DetectResult answer = client.Detect(picture, "yolov5n", options);
  Say({{"step", json::Text("detect")},
       {"model", json::Text(answer.served_by.model)},
       {"detections", json::Array(answer.detections, [](const visavis::Detection& found) {
          const visavis::Box& box = found.box;
          const auto edges = {box.x_min, box.y_min, box.x_max, box.y_max};
          return json::Object({{"label", json::Text(found.label)},
                               {"score", json::Rounded(found.score, 4)},
                               {"box", json::Array(edges, [](float edge) {
                                  return json::Rounded(edge, 1);
                                })}});
        })}});
}

// The agreement of an answer with the baseline's; null if it has none.
std::string Agreement(const visavis::ModelAnswer& answer) {
  if (const auto& labels = answer.classification_agreement) {
    return json::Object({{"same_top1", json::Bool(labels->same_top1)},
                         {"top_k_overlap", json::Rounded(labels->top_k_overlap, 4)}});
  }
  if (const auto& boxes = answer.detection_agreement) {
    return json::Object({{"matched", std::to_string(boxes->matched)},
                         {"only_here", std::to_string(boxes->only_here)},
                         {"only_in_baseline", std::to_string(boxes->only_in_baseline)},
                         {"f1", json::Rounded(boxes->f1, 4)}});
  }
  return "null";
}

void Compare(const visavis::Client& client, const visavis::Image& picture) {
  const auto arrived = [](const visavis::StreamedAnswer& streamed) {
    const visavis::ModelAnswer& answer = streamed.answer;
    Say({{"step", json::Text("compare")},
         {"arrived", json::Text(answer.served_by.model)},
         {"answers", std::to_string(answer.classifications.size() + answer.detections.size())}});
  };
  const visavis::Comparison comparison = client.CompareStream(picture, arrived);
  for (const visavis::TaskComparison& compared : comparison.tasks) {
    for (const visavis::ModelAnswer& answer : compared.answers) {
      Say({{"step", json::Text("compare")},
           {"task", json::Text(TaskName(compared.task))},
           {"model", json::Text(answer.served_by.model)},
           {"agreement", Agreement(answer)}});
    }
  }
}

void MissDeadline(const visavis::Client& client, const visavis::Image& picture) {
  visavis::ClassifyOptions options;
  options.timeout = std::chrono::milliseconds(1);
  const visavis::Error late = Refusal([&] { client.Classify(picture, "resnet50", options); });
  Say({{"step", json::Text("deadline")}, {"code", json::Text(visavis::Name(late.code()))}});
}

void BeRefused(const visavis::Client& client, const visavis::Image& picture) {
  visavis::ClassifyOptions options;
  options.top_k = 0;
  options.metadata = {{"x-request-id", "scenario"}};
  const visavis::Error refused = Refusal([&] { client.Classify(picture, "resnet50", options); });
  Say({{"step", json::Text("error")},
       {"code", json::Text(visavis::Name(refused.code()))},
       {"field", json::Text(refused.field())},
       {"request_id", json::Text(refused.request_id())}});
}

void ListOverTls(const std::string& server, const std::string& ca_file, const std::string& token) {
  visavis::ClientOptions options;
  options.tls = visavis::Tls{ca_file, "", ""};
  const visavis::Client stranger(server, options);
  options.token = token;
  const visavis::Client known(server, options);
  const std::size_t models = known.ListModels().size();
  const visavis::Error refused = Refusal([&] { stranger.ListModels(); });
  Say({{"step", json::Text("tls")},
       {"models", std::to_string(models)},
       {"without_token", json::Text(visavis::Name(refused.code()))}});
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3 && argc != 6) {
    throw std::invalid_argument("usage: scenario SERVER PICTURE [TLS_SERVER CA_FILE TOKEN]");
  }
  const visavis::Image picture = visavis::Image::File(argv[2]);
  const visavis::Client client(argv[1]);
  client.WaitUntilReady();
  Say({{"step", json::Text("health")}, {"status", json::Text("SERVING")}});
  List(client);
  Classify(client, picture);
  Detect(client, picture);
  Compare(client, picture);
  MissDeadline(client, picture);
  BeRefused(client, picture);
  if (argc == 6) ListOverTls(argv[3], argv[4], argv[5]);
} catch (const std::exception& error) {
  std::cerr << "scenario: " << error.what() << '\n';
  return 1;
}
