// match_main FOLDER IOU APART: pairs the detections of wanted_ROLE.npy and got_ROLE.npy; a line "wanted got" each.
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "detections.hpp"
#include "npy.hpp"

namespace {

using Arrays = std::map<std::string, adc::Array>;

adc::Detections read(const std::string& prefix, Arrays& kept) {
  std::map<std::string, adc::AnyView> views;
  for (const char* role : {"boxes", "labels", "scores"}) {
    const std::string path = prefix + role + ".npy";
    if (!std::filesystem::exists(path)) continue;
    views[role] = kept.emplace(role, adc::read_npy(path)).first->second.view();
  }
  return adc::detections_of(views);
}

}  // namespace

int main(int, char** argv) {
  const std::string folder = std::string(argv[1]) + "/";
  Arrays wanted_arrays;
  Arrays got_arrays;
  const adc::Detections wanted = read(folder + "wanted_", wanted_arrays);
  const adc::Detections got = read(folder + "got_", got_arrays);
  for (const adc::Detections* each : {&wanted, &got}) {
    if (!each->problem.empty()) {
      std::printf("%s\n", each->problem.c_str());
      return 1;
    }
  }
  const adc::RowPairs pairs =
      adc::match_detections(got, wanted, std::atof(argv[2]), std::atof(argv[3]));
  for (std::size_t i = 0; i < pairs.got.size(); ++i) {
    std::printf("%lld %lld\n", static_cast<long long>(pairs.wanted[i]),
                static_cast<long long>(pairs.got[i]));
  }
  return 0;
}
