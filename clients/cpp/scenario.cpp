// Runs the scenario of clients/README.md against a visavis server.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "google/rpc/code.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "json.h"
#include "visavis/v1/vision.grpc.pb.h"

namespace {

using namespace std::chrono_literals;
using namespace visavis::v1;
namespace health = grpc::health::v1;

// The context of one call, with a deadline of 30 seconds by default.
struct Context : grpc::ClientContext {
  explicit Context(std::chrono::milliseconds patience = 30s) {
    set_deadline(std::chrono::system_clock::now() + patience);
  }
};

// The largest accepted response; gRPC's default is 4 MiB.
constexpr int kMaxAnswerBytes = 96 << 20;

// All methods are read-only, so calls that fail as UNAVAILABLE or are cut off are retried, up to
// four attempts within their deadline. RESOURCE_EXHAUSTED is not: the server is overloaded already.
constexpr char kServiceConfig[] = R"({
  "methodConfig": [{
    "name": [{"service": "visavis.v1.VisionService"}],
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.1s",
      "maxBackoff": "1s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
    },
    "maxResponseMessageBytes": 100663296
  }]
})";

// A channel to a server that reconnects whenever its connection breaks.
std::shared_ptr<grpc::Channel> Connect(const std::string& server,
                                       const std::shared_ptr<grpc::ChannelCredentials>& security) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxAnswerBytes);
  arguments.SetServiceConfigJSON(kServiceConfig);
  // gRPC retries only requests that fit into this buffer; the default of 256 KiB is too small.
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, kMaxAnswerBytes);
  return grpc::CreateCustomChannel(server, security, arguments);
}

// Prints one line of JSON.
void Say(std::initializer_list<json::Field> fields) {
  std::cout << json::Object(fields) << std::endl;
}

// The name of a call's status in the spelling of gRPC's specification.
std::string CodeName(const grpc::Status& status) {
  return google::rpc::Code_Name(static_cast<google::rpc::Code>(status.error_code()));
}

// Ends the scenario if a call failed.
void Check(const grpc::Status& status) {
  if (!status.ok()) {
    throw std::runtime_error(CodeName(status) + ": " + status.error_message());
  }
}

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("can't read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string TaskName(Task task) {
  return task == TASK_CLASSIFICATION ? "classification" : "object detection";
}

void WaitUntilServing(const std::shared_ptr<grpc::Channel>& channel) {
  const auto stub = health::Health::NewStub(channel);
  const auto give_up = std::chrono::system_clock::now() + 30s;
  health::HealthCheckResponse answer;
  while (true) {
    grpc::ClientContext context;
    context.set_deadline(give_up);
    // If the server is not listening yet, gRPC retries until the deadline.
    context.set_wait_for_ready(true);
    Check(stub->Check(&context, {}, &answer));
    if (answer.status() == health::HealthCheckResponse::SERVING) break;
    std::this_thread::sleep_for(100ms);
  }
  Say({{"step", json::Text("health")}, {"status", json::Text("SERVING")}});
}

void List(VisionService::Stub& vision) {
  Context context;
  ListModelsResponse answer;
  Check(vision.ListModels(&context, {}, &answer));
  Say({{"step", json::Text("list")},
       {"models", json::Array(answer.models(), [](const Model& card) {
          return json::Object({{"name", json::Text(card.name())},
                               {"task", json::Text(TaskName(card.tasks(0)))},
                               {"precision", json::Text(card.precision())},
                               {"random_weights", json::Bool(card.random_weights())}});
        })}});
}

void Classify(VisionService::Stub& vision, const Image& picture) {
  ClassifyRequest request;
  *request.mutable_image() = picture;
  request.set_model("resnet50");
  request.set_top_k(3);
  Context context;
  ClassifyResponse answer;
  Check(vision.Classify(&context, request, &answer));
  Say({{"step", json::Text("classify")},
       {"model", json::Text(answer.served_by().model())},
       {"labels", json::Array(answer.classifications(), [](const Classification& found) {
          return json::Object({{"label", json::Text(found.label())},
                               {"score", json::Rounded(found.score(), 4)}});
        })}});
}

void Detect(VisionService::Stub& vision, const Image& picture) {
  DetectRequest request;
  *request.mutable_image() = picture;
  request.set_model("yolov5n");
  request.set_score_threshold(0.4f);
  Context context;
  DetectResponse answer;
  Check(vision.Detect(&context, request, &answer));
  Say({{"step", json::Text("detect")},
       {"model", json::Text(answer.served_by().model())},
       {"detections", json::Array(answer.detections(), [](const Detection& found) {
          const BoundingBox& box = found.box();
          const auto edges = {box.x_min(), box.y_min(), box.x_max(), box.y_max()};
          return json::Object({{"label", json::Text(found.label())},
                               {"score", json::Rounded(found.score(), 4)},
                               {"box", json::Array(edges, [](float edge) {
                                  return json::Rounded(edge, 1);
                                })}});
        })}});
}

// The agreement of an answer with the baseline's; null if it has none.
std::string Agreement(const ModelAnswer& answer) {
  if (answer.has_classification_agreement()) {
    const auto& agreement = answer.classification_agreement();
    return json::Object({{"same_top1", json::Bool(agreement.same_top1())},
                         {"top_k_overlap", json::Rounded(agreement.top_k_overlap(), 4)}});
  }
  if (answer.has_detection_agreement()) {
    const auto& agreement = answer.detection_agreement();
    return json::Object({{"matched", std::to_string(agreement.matched())},
                         {"only_here", std::to_string(agreement.only_here())},
                         {"only_in_baseline", std::to_string(agreement.only_in_baseline())},
                         {"f1", json::Rounded(agreement.f1(), 4)}});
  }
  return "null";
}

void Compare(VisionService::Stub& vision, const Image& picture) {
  CompareStreamRequest request;
  *request.mutable_image() = picture;
  Context context;
  const auto stream = vision.CompareStream(&context, request);
  CompareStreamResponse event;
  while (stream->Read(&event)) {
    if (event.has_answer()) {
      const ModelAnswer& answer = event.answer().answer();
      const int answers = answer.classifications_size() + answer.detections_size();
      Say({{"step", json::Text("compare")},
           {"arrived", json::Text(answer.served_by().model())},
           {"answers", std::to_string(answers)}});
    }
    for (const TaskComparison& comparison : event.summary().comparisons()) {
      for (const ModelAnswer& answer : comparison.answers()) {
        Say({{"step", json::Text("compare")},
             {"task", json::Text(TaskName(comparison.task()))},
             {"model", json::Text(answer.served_by().model())},
             {"agreement", Agreement(answer)}});
      }
    }
  }
  Check(stream->Finish());
}

void MissDeadline(VisionService::Stub& vision, const Image& picture) {
  ClassifyRequest request;
  *request.mutable_image() = picture;
  request.set_model("resnet50");
  Context context(1ms);
  ClassifyResponse answer;
  const grpc::Status status = vision.Classify(&context, request, &answer);
  Say({{"step", json::Text("deadline")}, {"code", json::Text(CodeName(status))}});
}

void BeRefused(VisionService::Stub& vision, const Image& picture) {
  ClassifyRequest request;
  *request.mutable_image() = picture;
  request.set_model("resnet50");
  request.set_top_k(0);
  Context context;
  context.AddMetadata("x-request-id", "scenario");
  ClassifyResponse answer;
  const grpc::Status status = vision.Classify(&context, request, &answer);
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  std::string field, request_id;
  for (const auto& detail : details.details()) {
    if (google::rpc::BadRequest bad_request; detail.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations()) field = violation.field();
    } else if (google::rpc::RequestInfo request_info; detail.UnpackTo(&request_info)) {
      request_id = request_info.request_id();
    }
  }
  Say({{"step", json::Text("error")},
       {"code", json::Text(CodeName(status))},
       {"field", json::Text(field)},
       {"request_id", json::Text(request_id)}});
}

void ListOverTls(const std::string& server, const std::string& ca_file, const std::string& token) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = Read(ca_file);
  const auto vision = VisionService::NewStub(Connect(server, grpc::SslCredentials(options)));
  Context with_token, without_token;
  with_token.AddMetadata("authorization", "Bearer " + token);
  ListModelsResponse answer, none;
  Check(vision->ListModels(&with_token, {}, &answer));
  const grpc::Status refused = vision->ListModels(&without_token, {}, &none);
  Say({{"step", json::Text("tls")},
       {"models", std::to_string(answer.models_size())},
       {"without_token", json::Text(CodeName(refused))}});
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3 && argc != 6) {
    throw std::invalid_argument("usage: scenario SERVER PICTURE [TLS_SERVER CA_FILE TOKEN]");
  }
  Image picture;
  picture.set_encoded(Read(argv[2]));
  const auto channel = Connect(argv[1], grpc::InsecureChannelCredentials());
  const auto vision = VisionService::NewStub(channel);
  WaitUntilServing(channel);
  List(*vision);
  Classify(*vision, picture);
  Detect(*vision, picture);
  Compare(*vision, picture);
  MissDeadline(*vision, picture);
  BeRefused(*vision, picture);
  if (argc == 6) ListOverTls(argv[3], argv[4], argv[5]);
} catch (const std::exception& error) {
  std::cerr << "scenario: " << error.what() << '\n';
  return 1;
}
