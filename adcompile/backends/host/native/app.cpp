#include "app.hpp"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "words.hpp"

namespace adc::app {

namespace {

namespace fs = std::filesystem;

/// The nearest folder with a manifest: from here upwards, then from where the program lies.
std::string find_bundle(const char* program) {
  std::error_code error;
  const fs::path own = fs::weakly_canonical(program, error).parent_path();
  for (const fs::path& start : {fs::path("."), own}) {
    for (const char* above : {"", "..", "../..", "../../.."}) {
      const fs::path folder = start / above;
      if (fs::is_regular_file(folder / "manifest.json", error)) return folder.string();
    }
  }
  fail("no manifest.json here, beside this program or above: give the bundle's folder with --bundle");
}

constexpr int kMost = 1000000;  // of anything that is counted

/// What a program does; options have a bit for each that takes them.
constexpr unsigned kPlain = 1;
constexpr unsigned kDetector = 2;
constexpr unsigned kAnomaly = 4;
constexpr unsigned kAny = kPlain | kDetector | kAnomaly;

unsigned kind_of(const BundleInfo& info) {
  return is_anomaly_detector(info) ? kAnomaly : is_object_detector(info) ? kDetector : kPlain;
}

struct Known {
  const char* brief;  // of the reference programs, "" without one
  const char* name;
  const char* value;
  unsigned kinds;
  const char* help;
};
constexpr std::array<Known, 17> kOptions{{
    {"-d", "--data", "DIR", kAny, "folder of pictures (sorted by name), or one picture"},
    {"", "--frames", "FILE", kAny, "stream of binary PGM/PPM pictures; - is standard input"},
    {"-e", "--engine", "FILE", kAny, "device file instead of the bundle's"},
    {"-m", "--memory_bank", "FILE", kAnomaly, "bank instead of the bundle's"},
    {"-i", "--image_size", "N", kAny, "checked against the contract"},
    {"", "--category", "NAME", kAnomaly, "bank and threshold of one of the bundle's categories"},
    {"-t", "--threshold", "X", kAnomaly,
     "raw score above which a picture is an anomaly (default: the contract's rule)"},
    {"-o", "--output", "DIR", kAny, "draw results into this folder"},
    {"", "--maps", "DIR", kAnomaly, "anomaly maps as .npy into this folder"},
    {"", "--csv", "FILE", kAnomaly | kDetector, "table of results"},
    {"-b", "--bundle", "DIR", kAny,
     "default: the nearest folder with a manifest.json, from here or this program upwards"},
    {"", "--runtime", "NAME", kAny, "auto, recorded, tensorrt, drpai, onnxruntime"},
    {"", "--device-option", "N=V", kAny, "passed to the runtime"},
    {"", "--sample", "N", kAny, "golden sample of the recorded runtime"},
    {"", "--min-score", "X", kDetector, "detections below it are not drawn"},
    {"-j", "--threads", "N", kAny, "host threads (default 1)"},
    {"-h", "--help", "", kAny, "this text"},
}};

/// The option that is called so; fails for one that this kind of model does not have.
const Known& known(const std::string& word, const BundleInfo& info) {
  for (const Known& each : kOptions) {
    if (word != each.name && (word != each.brief || word.empty())) continue;
    if ((each.kinds & kind_of(info)) != 0) return each;
    fail(word + " is not for this model: it detects no " +
         ((each.kinds & kAnomaly) != 0 ? "anomalies" : "objects"));
  }
  if (word.rfind('-', 0) != 0) fail("unexpected '" + word + "' (--help lists the options)");
  fail("unknown option " + word + " (--help lists the options)");
}

void apply(Options& o, const std::string& name, const std::string& value) {
  if (name == "--engine") {
    o.open.device["plan"] = value;
  } else if (name == "--memory_bank") {
    o.open.banks.push_back(value);
  } else if (name == "--data") {
    o.data = value;
  } else if (name == "--frames") {
    o.frames = value;
  } else if (name == "--image_size") {
    o.image_size = whole_of(name, value, 1, kMost);
  } else if (name == "--threshold") {
    o.threshold = number_of(name, value);
  } else if (name == "--category") {
    o.category = value;
  } else if (name == "--output") {
    o.output = value;
  } else if (name == "--maps") {
    o.maps = value;
  } else if (name == "--csv") {
    o.csv = value;
  } else if (name == "--bundle") {
    o.bundle = value;
  } else if (name == "--threads") {
    o.open.threads = whole_of(name, value, 1, kMostThreads);
  } else if (name == "--runtime") {
    o.open.engine = value;
  } else if (name == "--sample") {
    o.open.sample = static_cast<std::size_t>(whole_of(name, value, 0, kMost));
  } else if (name == "--min-score") {
    o.min_score = number_of(name, value);
  } else if (name == "--device-option") {
    const auto [option, setting] = name_and_value(name, value);
    o.open.device[option] = setting;
  }
}

void check_size(const Options& options, const BundleInfo& info) {
  if (options.image_size == 0 || info.images.empty()) return;
  const ImageInput& image = info.images[0];
  if (options.image_size != image.height || options.image_size != image.width) {
    fail("-i " + std::to_string(options.image_size) + ": this model takes " +
         std::to_string(image.height) + " x " + std::to_string(image.width) + " pictures");
  }
}

/// One file cannot stand for several.
void check_engine(const Options& options, const BundleInfo& info) {
  const auto devices = std::count_if(info.parts.begin(), info.parts.end(),
                                     [](const PartInfo& part) { return part.generated < 0; });
  if (options.open.device.count("plan") != 0 && devices != 1) {
    fail("-e: this bundle has " + std::to_string(devices) + " parts on devices, not one");
  }
}

double now_ms() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(since).count();
}

}  // namespace

bool is_anomaly_detector(const BundleInfo& info) { return info.score.method[0] != '\0'; }

bool is_object_detector(const BundleInfo& info) {
  return output_with_role(info, "boxes") >= 0 && output_with_role(info, "scores") >= 0 &&
         output_with_role(info, "labels") >= 0;
}

Options parse(int argc, char** argv, const BundleInfo& info) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    const std::size_t equals = word.rfind("--", 0) == 0 ? word.find('=') : std::string::npos;
    const std::string name = known(word.substr(0, equals), info).name;
    if (name == "--help") {
      o.help = true;
      return o;
    }
    if (equals == std::string::npos && i + 1 >= argc) fail(name + " needs a value");
    apply(o, name, equals != std::string::npos ? word.substr(equals + 1) : argv[++i]);
  }
  if (o.data.empty() == o.frames.empty()) {
    fail("give pictures: -d FOLDER (or one file), or --frames FILE (- for standard input)");
  }
  check_size(o, info);
  check_engine(o, info);
  if (o.bundle.empty()) o.bundle = find_bundle(argv[0]);
  return o;
}

std::string usage(const BundleInfo& info) {
  constexpr std::size_t kColumn = 27;
  std::string text = std::string("Runs ") + info.model + " for " + info.target + ".\n\n";
  for (const Known& each : kOptions) {
    if ((each.kinds & kind_of(info)) == 0) continue;
    const std::string brief = each.brief;
    std::string line = "  " + (brief.empty() ? std::string(4, ' ') : brief + ", ") + each.name + " " +
                       each.value;
    line.resize(std::max(line.size() + 1, kColumn), ' ');
    text += line + each.help + "\n";
  }
  return text + "\nExit codes: 0 done, 1 a picture could not be read, 2 nothing could be done.\n";
}

Source::Source(const Options& options) {
  if (!options.frames.empty()) {
    stream_ = options.frames == "-" ? stdin : std::fopen(options.frames.c_str(), "rb");
    if (stream_ == nullptr) fail(options.frames + ": cannot open");
    return;
  }
  std::error_code error;
  if (fs::is_regular_file(options.data, error)) {
    const fs::path file(options.data);
    folder_ = file.parent_path().string();
    names_ = {file.filename().string()};
  } else {
    folder_ = options.data;
    names_ = find_images(folder_);
  }
}

Source::~Source() {
  if (stream_ != nullptr && stream_ != stdin) std::fclose(stream_);
}

bool Source::next(Image& image, std::string& name) {
  if (stream_ != nullptr) {
    name = "frame_" + std::to_string(frame_++);
    return read_frame(stream_, image);
  }
  while (at_ < names_.size()) {
    name = names_[at_++];
    try {
      image = read_image((fs::path(folder_) / name).string());
      return true;
    } catch (const Error& error) {
      std::fprintf(stderr, "skipped: %s\n", error.what());
      ++skipped_;
    }
  }
  return false;
}

Clock::Clock() : last_(now_ms()) {}

double Clock::lap() {
  const double now = now_ms();
  const double passed = now - last_;
  last_ = now;
  return passed;
}

void Times::add(const Times& one) {
  read += one.read;
  preprocess += one.preprocess;
  inference += one.inference;
  postprocess += one.postprocess;
  total += one.total;
  ++images;
}

void Times::print(std::FILE* to) const {
  std::fprintf(to,
               "%d pictures: read %.1f ms, pre-processing %.1f ms, inference %.1f ms, "
               "post-processing %.1f ms\n",
               images, read, preprocess, inference, postprocess);
  if (images > 0) {
    std::fprintf(to, "average %.2f ms per picture, total %.1f ms\n", total / images, total);
  }
}

namespace {

/// What ran where, as far as a device's runtime may leave operators to the CPU.
void print_placements(const Bundle& bundle) {
  const std::vector<PartInfo>& parts = bundle.info().parts;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string text = bundle.placement(i);
    if (!text.empty()) std::printf("part %s: %s\n", parts[i].name, text.c_str());
  }
}

/// Pre-processes, sets the input, runs; adds up the times.
Placement run_image(Bundle& bundle, const Image& image, Array& tensor, Times& times) {
  const BundleInfo& info = bundle.info();
  if (info.images.size() != 1) fail("the contract does not say how a picture becomes an input");
  Clock clock;
  const Placement where = preprocess(image, info.images[0], tensor);
  times.preprocess = clock.lap();
  bundle.set(info.images[0].value, tensor.view());
  bundle.run();
  for (std::size_t i = 0; i < info.parts.size(); ++i) {
    const bool host = info.parts[i].generated >= 0;
    (host ? times.postprocess : times.inference) += bundle.seconds()[i] * 1e3;
  }
  times.total = times.read + times.preprocess + clock.lap();
  return where;
}

}  // namespace

int each_picture(const Options& options, Bundle& bundle,
                 const std::function<void(const Done&)>& use) {
  Source source(options);
  print_placements(bundle);
  Times all;
  Image image;
  Array tensor;
  std::string name;
  Clock reading;
  while (source.next(image, name)) {
    Times times;
    times.read = reading.lap();
    const Placement where = run_image(bundle, image, tensor, times);
    use({image, name, where, times});
    all.add(times);
    reading.lap();
  }
  if (all.images == 0 && source.skipped() == 0) fail(options.frames + ": no picture in the stream");
  all.print(stdout);
  return source.skipped() > 0 ? 1 : 0;
}

int output_with_role(const BundleInfo& info, const std::string& role) {
  for (const OutputInfo& output : info.outputs) {
    if (role == output.role) return output.value;
  }
  return -1;
}

Csv::Csv(const std::string& path, const char* header)
    : path_(path), file_(std::fopen(path.c_str(), "wb"), std::fclose) {
  if (!file_) fail(path + ": cannot write");
  std::fprintf(file_.get(), "%s\n", header);
}

void Csv::finish() {
  if (std::ferror(file_.get()) != 0 || std::fclose(file_.release()) != 0) {
    fail(path_ + ": cannot write");
  }
}

std::string Csv::field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

void make_folder(const std::string& path) {
  if (path.empty()) return;
  std::error_code error;
  fs::create_directories(path, error);
  if (!fs::is_directory(path)) fail(path + ": cannot make the folder");
}

}  // namespace adc::app
