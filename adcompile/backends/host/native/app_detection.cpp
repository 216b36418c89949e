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

/// Masks that lie over the whole tensor; smaller ones (a box each) are not drawn.
std::optional<View<float>> pasted(const AnyView& masks, const Placement& where) {
  const int rank = masks.shape.rank();
  if (masks.dtype != DType::kFloat32 || rank < 3 || masks.shape[rank - 2] != where.size_height ||
      masks.shape[rank - 1] != where.size_width) {
    return std::nullopt;
  }
  return typed<float>(masks, "masks");
}

/// Frames and names of the detections worth showing, over their masks where there are any.
class Drawing {
 public:
  Drawing(const Options& options, const Done& done)
      : options_(options), done_(done), image_(to_colour(done.image)) {}

  void add(const float* box, float score, const std::string& title, Index label,
           const View<float>* mask, Index row) {
    if (!(static_cast<double>(score) >= options_.min_score)) return;
    if (mask != nullptr) tint_mask(image_, *mask, row, done_.where, colour_of(label));
    draw_box(image_, box, colour_of(label));
    const std::string text =
        (title.empty() ? std::to_string(label) : title) + " " + std::to_string(score).substr(0, 4);
    draw_text(image_, static_cast<int>(box[0]) + 3, static_cast<int>(box[1]) + 3, text,
              std::max(1, image_.height / 300), colour_of(label));
  }
  void write() const {
    write_image(options_.output + "/" + done_.stem() + "_result" + picture_suffix(), image_);
  }

 private:
  const Options& options_;
  const Done& done_;
  Image image_;
};

}  // namespace

int run_detection(const Options& options) {
  Bundle bundle(options.bundle, options.open);
  const BundleInfo& info = bundle.info();
  const int boxes = output_with_role(info, "boxes");
  const int scores = output_with_role(info, "scores");
  const int labels = output_with_role(info, "labels");
  const int masks = output_with_role(info, "masks");
  make_folder(options.output);
  Csv csv(options.csv.empty() ? "detections.csv" : options.csv,
          "filename,label,class,score,x1,y1,x2,y2");
  const int code = each_picture(options, bundle, [&](const Done& done) {
    const Found found = collect(bundle, boxes, scores, labels);
    std::optional<View<float>> shapes;
    if (masks >= 0) shapes = pasted(bundle.get(masks), done.where);
    std::optional<Drawing> drawing;
    if (!options.output.empty()) drawing.emplace(options, done);
    for (Index i = 0; i < found.count; ++i) {
      std::array<float, 4> box{};
      done.where.box_to_image(found.boxes.data() + 4 * i, box.data());
      const Index label = found.labels[i];
      const bool named = label >= 0 && label < static_cast<Index>(info.classes.size());
      const std::string title = named ? info.classes[static_cast<std::size_t>(label)] : "";
      std::fprintf(csv.file(), "%s,%lld,%s,%.6f,%.3f,%.3f,%.3f,%.3f\n",
                   Csv::field(done.name).c_str(), static_cast<long long>(label),
                   Csv::field(title).c_str(), static_cast<double>(found.scores[i]),
                   static_cast<double>(box[0]), static_cast<double>(box[1]),
                   static_cast<double>(box[2]), static_cast<double>(box[3]));
      if (drawing) {
        drawing->add(box.data(), found.scores[i], title, label, shapes ? &*shapes : nullptr, i);
      }
    }
    std::printf("%s: %lld detections\n", done.name.c_str(), static_cast<long long>(found.count));
    if (drawing) drawing->write();
  });
  csv.finish();
  return code;
}

}  // namespace adc::app
