// Uses the library as another project would; the arguments are those of Arguments in
// test_packages.py.

#include <visavis/client.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

namespace {

using visavis::Client;
using visavis::ClientOptions;
using visavis::Image;

std::string Names(const std::vector<visavis::Model>& models) {
  std::string names;
  for (const auto& model : models) names += (names.empty() ? "" : ",") + model.name;
  return names;
}

const char* Bool(bool value) { return value ? "true" : "false"; }

std::string TaskName(visavis::Task task) {
  return task == visavis::Task::kClassification ? "classification" : "detection";
}

// Prints the type of the error that a call throws, and its details.
template <typename Call>
void Failed(const char* what, Call&& call) {
  const auto print = [&](const char* type, const visavis::Error& error) {
    // The ids that the server makes are hidden.
    const std::string& id = error.request_id();
    const auto retry = error.retry_delay().value_or(std::chrono::milliseconds(0)).count();
    std::cout << what << ' ' << type << " field=" << error.field()
              << " id=" << (id.empty() || id == "mine" ? id : "some") << " retry=" << retry << '\n';
  };
  try {
    call();
    std::exit(1);
  } catch (const visavis::InvalidSettings& error) {
    print("InvalidSettings", error);
  } catch (const visavis::InvalidRequest& error) {
    print("InvalidRequest", error);
  } catch (const visavis::ModelNotFound& error) {
    print("ModelNotFound", error);
  } catch (const visavis::AccessDenied& error) {
    print("AccessDenied", error);
  } catch (const visavis::Overloaded& error) {
    print("Overloaded", error);
  } catch (const visavis::Unavailable& error) {
    print("Unavailable", error);
  } catch (const visavis::DeadlineExceeded& error) {
    print("DeadlineExceeded", error);
  }
}

// Prints a map as a line: its second value tells rows from columns.
void Print(const char* before, const std::optional<visavis::HeatMap>& map) {
  const visavis::HeatMap& of = map.value();
  std::printf("%smap %s %d %d %d %zu %.3f %.3f %.3f %.1f %.1f %.1f %.1f\n", before,
              of.label.c_str(), of.class_id, of.width, of.height, of.values.size(), of.values.at(1),
              of.min, of.max, of.area.x_min, of.area.y_min, of.area.x_max, of.area.y_max);
}

void HeatMaps(const Client& client, const Image& picture) {
  visavis::ClassifyOptions paint;
  paint.explain = visavis::Explain{};
  Print("", client.Classify(picture, "paints", paint).heat_map);
  paint.explain->label = "green";
  Print("", client.Classify(picture, "paints", paint).heat_map);
  visavis::DetectOptions bird;
  bird.explain = visavis::Explain{};
  Print("", client.Detect(picture, "heads", bird).heat_map);
  bird.explain = visavis::Explain{"bird"};
  Print("", client.Detect(picture, "heads", bird).heat_map);
}

void ComparedHeatMaps(const Client& client, const Image& picture) {
  visavis::CompareOptions options;
  options.models = {"boxes", "heads"};
  options.explain = visavis::Explain{"cat"};
  const auto answers = client.Compare(picture, options).tasks.at(0).answers;
  std::printf("boxes %s\n", Bool(answers.at(0).heat_map.has_value()));
  Print("heads ", answers.at(1).heat_map);
  options.models = {"heads"};
  const auto print = [](const visavis::StreamedAnswer& streamed) {
    std::printf("streamed %s\n", Bool(streamed.answer.heat_map.has_value()));
  };
  client.CompareStream(picture, print, options);
}

std::string Size(const visavis::Comparison& comparison) {
  const visavis::ImageSize& size = comparison.annotated_image.value().size;
  return std::to_string(size.width) + ' ' + std::to_string(size.height);
}

void ComparedDrawings(const Client& client, const Image& picture) {
  visavis::CompareOptions options;
  options.models = {"boxes", "heads"};
  options.annotate = true;
  std::printf("side by side %s\n", Size(client.Compare(picture, options)).c_str());
  options.annotate = false;
  options.annotate_difference = true;
  const auto ignore = [](const visavis::StreamedAnswer&) {};
  const std::string unary = Size(client.Compare(picture, options));
  const std::string streamed = Size(client.CompareStream(picture, ignore, options));
  std::printf("difference %s %s\n", unary.c_str(), streamed.c_str());
}

void Results(const Client& client, const Image& picture) {
  std::cout << "models " << Names(client.ListModels()) << '\n';
  const visavis::Model card = client.GetModel("colors", 1);
  std::string labels;
  for (const auto& label : card.label_set.labels) labels += (labels.empty() ? "" : ",") + label;
  std::cout << "card " << card.name << ' ' << card.version << ' ' << TaskName(card.tasks.at(0))
            << ' ' << labels << ' ' << Bool(card.verification.golden_sample) << ' '
            << Bool(card.receipt.has_value()) << std::endl;
  visavis::ClassifyOptions two;
  two.top_k = 2;
  two.annotate = true;
  const auto classified = client.Classify(picture, "colors", two);
  for (const auto& found : classified.classifications) {
    std::printf("label %s %d %.3f\n", found.label.c_str(), found.class_id, found.score);
  }
  const auto& drawn = classified.annotated_image.value();
  std::printf("drawn %s %d %d %s\n", drawn.media_type.c_str(), drawn.size.width,
              drawn.size.height, Bool(drawn.encoded.rfind("\xff\xd8", 0) == 0));
  visavis::DetectOptions cats;
  cats.iou_threshold = 0.9f;
  cats.labels = {"cat"};
  for (const auto& found : client.Detect(picture, "boxes", cats).detections) {
    std::printf("box %s %.3f %.1f %.1f %.1f %.1f\n", found.label.c_str(), found.score,
                found.box.x_min, found.box.y_min, found.box.x_max, found.box.y_max);
  }
  HeatMaps(client, picture);
  std::string pixels;
  for (int i = 0; i < 64; ++i) pixels += std::string("\xff\0\0", 3);
  const auto raw = client.Classify(Image::Raw(visavis::PixelFormat::kBgr, 8, 8, pixels), "colors");
  std::printf("raw %s %s %d %d %s\n", raw.classifications.at(0).label.c_str(),
              raw.served_by.model.c_str(), raw.served_by.version, raw.image_size.width,
              Bool(!raw.annotated_image));
}

void Comparison(const Client& client, const Image& picture) {
  visavis::CompareOptions options;
  options.baseline = "colors";
  options.top_k = 2;
  int arrived = 0;
  const auto count = [&](const visavis::StreamedAnswer& streamed) {
    if (streamed.answer.classification_agreement) std::exit(1);
    ++arrived;
  };
  const visavis::Comparison comparison = client.CompareStream(picture, count, options);
  std::printf("arrived %d\n", arrived);
  for (const auto& compared : comparison.tasks) {
    for (const auto& answer : compared.answers) {
      std::printf("compared %s %s %s", TaskName(compared.task).c_str(), compared.baseline.c_str(),
                  answer.served_by.model.c_str());
      if (const auto& of = answer.classification_agreement) {
        std::printf(" %s %.3f", Bool(of->same_top1), of->top_k_overlap);
        if (const auto& divergence = of->jensen_shannon_divergence) {
          std::printf(" %.3f", *divergence);
        } else {
          std::printf(" none");
        }
        std::printf(" %d %d", of->unknown_here, of->unknown_in_baseline);
      }
      if (const auto& of = answer.detection_agreement) {
        std::printf(" %d %d %d %.3f %d %d", of->matched, of->only_here, of->only_in_baseline,
                    of->f1, of->unknown_here, of->unknown_in_baseline);
      }
      std::printf("\n");
    }
  }
  visavis::CompareOptions alone;
  alone.tasks = {visavis::Task::kDetection};
  alone.models = {"boxes"};
  alone.max_detections = 1;
  const visavis::Comparison one = client.Compare(picture, alone);
  std::printf("alone %zu %s\n", one.tasks.at(0).answers.at(0).detections.size(),
              Bool(!one.tasks.at(0).nothing_to_compare.empty()));
  ComparedHeatMaps(client, picture);
  ComparedDrawings(client, picture);
}

}  // namespace

int main(int, char** argv) {
  const std::string server = argv[1], tls = argv[2], authority = argv[3], certificate = argv[4],
                    key = argv[5], token = argv[6], unix_server = argv[7], fake = argv[8];
  std::cout << std::unitbuf;
  std::setbuf(stdout, nullptr);
  const Client client(server);
  client.WaitUntilReady();
  const Image picture = Image::File(argv[9]);
  Results(client, picture);
  Comparison(client, picture);
  visavis::ClassifyOptions none;
  none.top_k = 0;
  none.metadata = {{"x-request-id", "mine"}};
  Failed("rejected", [&] { client.Classify(picture, "colors", none); });
  Failed("unknown", [&] { client.Detect(picture, "nothing"); });

  ClientOptions secure;
  secure.tls = visavis::Tls{authority, certificate, key};
  secure.token = token;
  std::cout << "tls " << Names(Client(tls, secure).ListModels()) << '\n';
  ClientOptions stranger = secure;
  stranger.token.clear();
  Failed("stranger", [&] { Client(tls, stranger).ListModels(); });
  ClientOptions nobody = secure;
  nobody.tls = visavis::Tls{authority, "", ""};
  Failed("nobody", [&] { Client(tls, nobody).ListModels(); });
  ClientOptions clear;
  clear.token = token;
  Failed("clear", [&] { Client("192.0.2.1:8001", clear); });

  const Client local(unix_server);
  std::cout << "unix " << Names(local.ListModels()) << '\n';
  const visavis::Receipt receipt = local.GetModel("yolov5n").receipt.value();
  std::printf("receipt %.3f %.6f %.6f\n", receipt.heat_map_tolerance,
              receipt.max_heat_map_difference.value(),
              receipt.pictures.at(0).max_heat_map_difference.value());
  ClientOptions options;
  options.timeout = std::chrono::milliseconds(200);
  options.token = "secret";
  options.metadata = {{"x-team", "vision"}};
  const Client impatient(fake, options);
  Failed("overloaded", [&] { impatient.Classify(picture, "any"); });
  Failed("late", [&] { impatient.Detect(picture, "any"); });
  std::cout << "again " << Client(fake).Compare(picture).tasks.size() << '\n';
}
