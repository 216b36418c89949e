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

#ifdef __cplusplus
}
#endif

#endif
