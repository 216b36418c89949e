// image_main PICTURE OUT.npy HEIGHT WIDTH RESIZE TO_HEIGHT TO_WIDTH RESAMPLE CHANNELS LAYOUT DTYPE
// pre-processes one picture; mean and standard deviation are fixed.
#include <cstdio>
#include <cstdlib>

#include "preprocess.hpp"

int main(int argc, char** argv) {
  if (argc != 12) return 3;
  try {
    const bool grey = std::string(argv[9]) == "gray";
    const std::vector<float> mean = grey ? std::vector<float>{0.45f}
                                         : std::vector<float>{0.485f, 0.456f, 0.406f};
    const std::vector<float> deviation = grey ? std::vector<float>{0.226f}
                                              : std::vector<float>{0.229f, 0.224f, 0.225f};
    const adc::ImageInput spec{0,
                               std::atoi(argv[3]),
                               std::atoi(argv[4]),
                               argv[5],
                               std::atoi(argv[6]),
                               std::atoi(argv[7]),
                               argv[8],
                               argv[9],
                               0.003921568859368563f,
                               mean,
                               deviation,
                               argv[10],
                               argv[11],
                               114};
    adc::Array out;
    adc::preprocess(adc::read_image(argv[1]), spec, out);
    adc::write_npy(argv[2], out.view());
    return 0;
  } catch (const adc::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
