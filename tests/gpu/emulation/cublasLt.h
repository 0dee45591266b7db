/* Stands in for cuBLASLt where kernels are emulated: product.c beside it computes the products. */
#ifndef BARCAST_TESTS_GPU_EMULATION_CUBLASLT_H
#define BARCAST_TESTS_GPU_EMULATION_CUBLASLT_H

typedef void *cublasLtHandle_t;
typedef struct {
    int none;
} cublasLtMatmulAlgo_t;

#endif
