#include "selftest.hpp"

#include "compare.hpp"
#include "npy.hpp"

namespace adc {

namespace {

class Replay {
 public:
  Replay(Bundle& bundle, const GoldenInfo& sample, std::FILE* report, SelftestResult& result)
      : bundle_(bundle), info_(bundle.info()), report_(report), result_(result) {
    recorded_.resize(info_.values.size());
    for (const GoldenTensor& t : sample.tensors) {
      recorded_[static_cast<std::size_t>(t.value)] = read_npy(bundle.folder() + "/" + t.path);
      known_.push_back(t.value);
    }
  }

  void part(std::size_t index) {
    const PartInfo& part = info_.parts[index];
    if (part.generated < 0) return;
    for (const int v : part.inputs) {
      if (!known(v)) {
        std::fprintf(report_, "  %-20s skipped: '%s' was not recorded\n", part.name, name(v));
        ++result_.skipped;
        return;
      }
      bundle_.set(v, recorded_[static_cast<std::size_t>(v)].view());
    }
    bundle_.run_part(index);
    check(part, bundle_.seconds()[index]);
  }

 private:
  [[nodiscard]] bool known(int value) const {
    return std::find(known_.begin(), known_.end(), value) != known_.end();
  }
  [[nodiscard]] const char* name(int value) const {
    return info_.values[static_cast<std::size_t>(value)].name;
  }
  [[nodiscard]] std::string role(int value) const {
    for (const OutputInfo& output : info_.outputs) {
      if (output.value == value) return output.role;
    }
    return "part";
  }

  void check(const PartInfo& part, double seconds) {
    std::vector<int> values;
    std::vector<AnyView> got;
    std::vector<AnyView> wanted;
    std::vector<ToleranceInfo> tolerances;
    for (const int v : part.outputs) {
      if (!known(v)) continue;
      values.push_back(v);
      got.push_back(bundle_.get(v));
      wanted.push_back(recorded_[static_cast<std::size_t>(v)].view());
      tolerances.push_back(tolerance_of(info_, role(v)));
    }
    const std::vector<Difference> found = compare_rows(got, wanted, tolerances);
    std::fprintf(report_, "  %-20s %.3f ms\n", part.name, seconds * 1e3);
    for (std::size_t i = 0; i < found.size(); ++i) {
      ++result_.compared;
      std::fprintf(report_, "    %-40s %s", name(values[i]), found[i].fits ? "equal" : "DIFFERENT");
      if (found[i].fits) {
        std::fprintf(report_, " (largest difference %g", found[i].worst);
        if (found[i].permuted > 0) {
          std::fprintf(report_, ", %lld rows in another order",
                       static_cast<long long>(found[i].permuted));
        }
        std::fprintf(report_, ")\n");
      } else {
        std::fprintf(report_, ": %s\n", found[i].why.c_str());
        ++result_.different;
      }
    }
  }

  Bundle& bundle_;
  const BundleInfo& info_;
  std::FILE* report_;
  SelftestResult& result_;
  std::vector<Array> recorded_;
  std::vector<int> known_;
};

}  // namespace

SelftestResult run_selftest(const std::string& folder, int threads, std::FILE* report) {
  OpenOptions options;
  options.threads = threads;
  options.devices = false;
  Bundle bundle(folder, options);
  SelftestResult result;
  for (const GoldenInfo& sample : bundle.info().golden) {
    std::fprintf(report, "%s\n", sample.source);
    Replay replay(bundle, sample, report, result);
    for (std::size_t i = 0; i < bundle.info().parts.size(); ++i) replay.part(i);
  }
  return result;
}

}  // namespace adc
