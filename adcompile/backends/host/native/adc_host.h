/* C interface of the generated host library. Every function that can fail returns 0 on success;
   adc_last_error() then holds a sentence, per thread. No exception crosses this border. */
#ifndef ADC_HOST_H
#define ADC_HOST_H

#include <stdint.h>

#if defined(_WIN32)
#define ADC_API __declspec(dllexport)
#else
#define ADC_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ADC_MAX_RANK 8

enum adc_dtype {
  ADC_FLOAT32 = 1,
  ADC_FLOAT64 = 2,
  ADC_FLOAT16 = 3,
  ADC_BFLOAT16 = 4,
  ADC_BOOL = 5,
  ADC_INT8 = 6,
  ADC_INT16 = 7,
  ADC_INT32 = 8,
  ADC_INT64 = 9,
  ADC_UINT8 = 10,
  ADC_UINT16 = 11,
  ADC_UINT32 = 12,
  ADC_UINT64 = 13
};

/* A dense row-major tensor. A dimension of -1 in a description may have any size. */
typedef struct adc_tensor {
  int32_t dtype;
  int32_t rank;
  int64_t dims[ADC_MAX_RANK];
  const void* data;
} adc_tensor;

typedef struct adc_part adc_part;

ADC_API const char* adc_last_error(void);
ADC_API void adc_set_threads(int count);

/* Host parts, for callers that run the device themselves. */
ADC_API int adc_part_count(void);
ADC_API const char* adc_part_name(int index);
ADC_API adc_part* adc_part_open(int index, const char* weights_path);
ADC_API void adc_part_close(adc_part* part);
ADC_API int adc_part_inputs(const adc_part* part);
ADC_API int adc_part_outputs(const adc_part* part);
ADC_API const char* adc_part_input_name(const adc_part* part, int index);
ADC_API const char* adc_part_output_name(const adc_part* part, int index);
/* Results point into the part and are valid until its next run. */
ADC_API int adc_part_run(adc_part* part, const adc_tensor* inputs, int input_count,
                         adc_tensor* outputs, int output_count);

/* Regions as tiles of one image, for callers that run a mosaic part's device model themselves: the
   sizes are those of the part's option "mosaic". A flat tensor (rows x channels) has tiles of 1 x 1. */
typedef struct adc_tiles {
  int64_t grid_rows, grid_columns;
  int64_t height, width;
  int64_t pitch_y, pitch_x; /* distance between the corners of neighbouring tiles */
  int32_t flat;
} adc_tiles;

/* rows (at most as many as there are tiles) to an image of 1 x channels x grid_rows*pitch_y x
   grid_columns*pitch_x in the caller's memory; gutters and tiles without a row are zero. */
ADC_API int adc_tiles_pack(const adc_tensor* rows, const adc_tiles* tiles, void* image,
                           uint64_t image_bytes);
/* The first count tiles of an image as rows, in the caller's memory. */
ADC_API int adc_tiles_unpack(const adc_tensor* image, const adc_tiles* tiles, int64_t count,
                             void* rows, uint64_t rows_bytes);

/* The whole bundle: host parts here, device parts through an engine. */
typedef struct adc_bundle adc_bundle;

/* folder: the bundle. options: "NAME=VALUE" strings; names: runtime (auto, recorded, tensorrt,
   drpai, onnxruntime), threads, sample, bank (once per memory bank, in order); any other name is
   handed to the runtime. */
ADC_API adc_bundle* adc_bundle_open(const char* folder, const char* const* options, int count);
ADC_API void adc_bundle_close(adc_bundle* bundle);
ADC_API int adc_bundle_inputs(const adc_bundle* bundle);
ADC_API int adc_bundle_outputs(const adc_bundle* bundle);
ADC_API const char* adc_bundle_input_name(const adc_bundle* bundle, int index);
ADC_API const char* adc_bundle_output_name(const adc_bundle* bundle, int index);
/* The role of an output: boxes, scores, labels, masks, score, map, features, ... */
ADC_API const char* adc_bundle_output_role(const adc_bundle* bundle, int index);
/* Copies an input. */
ADC_API int adc_bundle_set(adc_bundle* bundle, const char* name, const adc_tensor* tensor);
/* Pre-processes 8-bit pixels (rows of RGB or grey) into the one image input, by the contract. */
ADC_API int adc_bundle_set_image(adc_bundle* bundle, const unsigned char* pixels, int height,
                                 int width, int channels);
ADC_API int adc_bundle_run(adc_bundle* bundle);
/* Any tensor of the last run by name; valid until the next run. */
ADC_API int adc_bundle_get(adc_bundle* bundle, const char* name, adc_tensor* tensor);
/* Replays the golden data of the bundle, report to standard output; returns the number of tensors
   that differ, or -1 on failure. */
ADC_API int adc_bundle_selftest(const char* folder, int threads);

#ifdef __cplusplus
}
#endif

#endif
