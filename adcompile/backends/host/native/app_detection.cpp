// Object detectors: a table of boxes, and pictures with frames.
#include "app.hpp"
#include "draw.hpp"

namespace adc::app {

namespace {

template <class T>
View<T> typed(const AnyView& tensor, const char* role) {
  if (tensor.dtype != dtype_of<T>()) fail(std::string("output '") + role + "' has another type");
  return {static_cast<const T*>(tensor.data), tensor.shape};
}

struct Found {
  View<float> boxes;
  View<float> scores;
  View<Index> labels;
  Index count;
};

Found collect(const Bundle& bundle, int boxes, int scores, int labels) {
  Found f{typed<float>(bundle.get(boxes), "boxes"), typed<float>(bundle.get(scores), "scores"),
          typed<Index>(bundle.get(labels), "labels"), 0};
  f.count = f.scores.size();
  if (f.boxes.size() != 4 * f.count || f.labels.size() != f.count) {
    fail("boxes, scores and labels have different lengths");
  }
  return f;
}

std::array<unsigned char, 3> colour_of(Index label) {
  const auto step = static_cast<std::size_t>((label < 0 ? 0 : label) * 67 % 256);
  return heat_colours()[step];
}

}  // namespace

int run_detection(const Options& options) {
  Bundle bundle(options.bundle, options.open);
  const BundleInfo& info = bundle.info();
  const int boxes = output_with_role(info, "boxes");
  const int scores = output_with_role(info, "scores");
  const int labels = output_with_role(info, "labels");
  Source source(options);
  if (!options.output.empty()) make_folder(options.output);
  const std::string table = options.csv.empty() ? "detections.csv" : options.csv;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> csv(std::fopen(table.c_str(), "wb"),
                                                            std::fclose);
  if (!csv) fail(table + ": cannot write");
  std::fprintf(csv.get(), "filename,label,class,score,x1,y1,x2,y2\n");
  Times all;
  Image image;
  Array tensor;
  std::string name;
  Clock reading;
  while (source.next(image, name)) {
    Times times;
    times.read = reading.lap();
    const Placement where = run_image(bundle, image, tensor, times);
    const Found found = collect(bundle, boxes, scores, labels);
    Image drawn = image;
    if (drawn.channels == 1 && !options.output.empty()) {
      drawn = make_image(image.width, image.height, 3, "drawing");
      for (std::size_t i = 0; i < drawn.pixels.size(); ++i) drawn.pixels[i] = image.pixels[i / 3];
    }
    for (Index i = 0; i < found.count; ++i) {
      std::array<float, 4> box{};
      where.box_to_image(found.boxes.data() + 4 * i, box.data());
      const Index label = found.labels[i];
      const bool named = label >= 0 && label < static_cast<Index>(info.classes.size());
      const std::string title = named ? info.classes[static_cast<std::size_t>(label)] : "";
      const float score = found.scores[i];
      std::fprintf(csv.get(), "%s,%lld,%s,%.6f,%.3f,%.3f,%.3f,%.3f\n", csv_field(name).c_str(),
                   static_cast<long long>(label), csv_field(title).c_str(),
                   static_cast<double>(score), static_cast<double>(box[0]),
                   static_cast<double>(box[1]), static_cast<double>(box[2]),
                   static_cast<double>(box[3]));
      if (options.output.empty() || !(static_cast<double>(score) >= options.min_score)) continue;
      draw_box(drawn, box.data(), colour_of(label));
      const std::string text = (title.empty() ? std::to_string(label) : title) + " " +
                               std::to_string(score).substr(0, 4);
      draw_text(drawn, static_cast<int>(box[0]) + 3, static_cast<int>(box[1]) + 3, text,
                std::max(1, image.height / 300), colour_of(label));
    }
    std::printf("%s: %lld detections\n", name.c_str(), static_cast<long long>(found.count));
    if (!options.output.empty()) {
      write_image(options.output + "/" + name.substr(0, name.rfind('.')) + "_result.bmp", drawn);
    }
    all.add(times);
    reading.lap();
  }
  if (std::fflush(csv.get()) != 0) fail(table + ": cannot write");
  all.print(stdout);
  return source.skipped() > 0 || all.images == 0 ? 1 : 0;
}

}  // namespace adc::app
