#include "base/normal.h"

#include <math.h>

double normal_quantile(double p)
{
    double low = -40, high = 40;

    for (int i = 0; i < 80; i++) {
        double middle = (low + high) / 2;
        if (erfc(-middle / sqrt(2)) / 2 < p)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}
