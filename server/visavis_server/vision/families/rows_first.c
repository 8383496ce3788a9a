/* Pillow's bilinear resize of an RGB picture, bit for bit, computed only for a crop.
 *
 * After Pillow's src/libImaging/Resample.c: each new pixel mixes some of the old pixels, with
 * weights of 22 bits; first the rows are mixed, then the columns, and each pass rounds to 8 bits.
 * Faster for three reasons: four bytes are mixed at once, pixels outside the crop are never
 * computed, and a row goes through both passes while it is in the cache.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian processors"
#endif

#if defined(__x86_64__) && defined(__GLIBC__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

enum { BITS = 22 };

/* Red, green, blue, and an unused byte of the next pixel. */
typedef uint32_t Pixel __attribute__((vector_size(16)));

static const Pixel HALF = {1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1)};

/* Resizes an axis from `size` to `new_size` pixels, and keeps `count` of these from `first` on. */
typedef struct {
    int64_t size, new_size, first, count;
} Axis;

/* New pixel i mixes `taps` old pixels from first[i] on, with the weights from weights[i * taps]. */
typedef struct {
    int64_t taps;
    int64_t *first;
    uint32_t *weights;
} Mix;

/* Returns 0 if out of memory, as rows_first does. */
static int make_mix(const Axis *axis, Mix *mix)
{
    double scale = (double)axis->size / axis->new_size;
    double reach = scale < 1 ? 1 : scale, inverse = 1 / reach;
    int64_t taps = (int64_t)(2 * reach) + 1;

    if (taps > axis->size)
        taps = axis->size;
    double *shares = malloc(taps * sizeof *shares);
    mix->taps = taps;
    mix->first = malloc(axis->count * sizeof *mix->first);
    mix->weights = calloc(axis->count * taps, sizeof *mix->weights);
    if (!shares || !mix->first || !mix->weights) {
        free(shares);
        return 0;
    }
    for (int64_t i = 0; i < axis->count; i++) {
        double center = (axis->first + i + 0.5) * scale, total = 0;
        int64_t low = (int64_t)(center - reach + 0.5), high = (int64_t)(center + reach + 0.5);

        if (low < 0)
            low = 0;
        if (high > axis->size)
            high = axis->size;
        if (high > low + taps)
            high = low + taps;
        for (int64_t old = low; old < high; old++) {
            double distance = (old - center + 0.5) * inverse;
            double share = 1 - (distance < 0 ? -distance : distance);
            total += shares[old - low] = share > 0 ? share : 0;
        }
        /* At the far end, the first taps have no weight. */
        int64_t first = low < axis->size - taps ? low : axis->size - taps;
        uint32_t *weights = mix->weights + i * taps + low - first;
        mix->first[i] = first;
        for (int64_t k = 0; k < high - low; k++)
            weights[k] = (uint32_t)(shares[k] / total * (1 << BITS) + 0.5);
    }
    free(shares);
    return 1;
}

/* Mixes a row of pixels of 3 bytes; reads one byte beyond it. */
FOR_EACH_PROCESSOR
static void mix_row(const uint8_t *restrict row, const Mix *mix, int64_t count,
                    Pixel *restrict mixed)
{
    const uint32_t *weight = mix->weights;

    for (int64_t i = 0; i < count; i++) {
        const uint8_t *old = row + 3 * mix->first[i];
        Pixel sum = HALF;

        for (int64_t k = 0; k < mix->taps; k++, old += 3, weight++) {
            uint32_t bytes;
            memcpy(&bytes, old, sizeof bytes);
            Pixel pixel = {bytes, bytes, bytes, bytes};
            sum += (pixel >> (Pixel){0, 8, 16, 24} & 255) * *weight;
        }
        mixed[i] = sum >> BITS;
    }
}

/* Mixes rows to one row of pixels of 3 bytes; row r of the picture is rows[r % taps]. */
FOR_EACH_PROCESSOR
static void mix_rows(const Pixel *restrict rows, const Mix *mix, int64_t i, int64_t count,
                     Pixel *restrict sums, uint8_t *restrict out)
{
    for (int64_t x = 0; x < count; x++)
        sums[x] = HALF;
    for (int64_t k = 0; k < mix->taps; k++) {
        const Pixel *row = rows + (mix->first[i] + k) % mix->taps * count;
        uint32_t weight = mix->weights[i * mix->taps + k];

        for (int64_t x = 0; x < count; x++)
            sums[x] += row[x] * weight;
    }
    for (int64_t x = 0; x < count; x++)
        for (int color = 0; color < 3; color++)
            out[3 * x + color] = (uint8_t)(sums[x][color] >> BITS);
}

/* image: [height, width, 3], its rows row_bytes apart; out: [y.count, x.count, 3]. */
int rows_first(const uint8_t *image, int64_t row_bytes, Axis x, Axis y, uint8_t *out)
{
    Mix across = {0}, down = {0};
    Pixel *rows = NULL, *sums = NULL;
    uint8_t *last = NULL;
    int enough = make_mix(&x, &across) && make_mix(&y, &down);

    if (enough) {
        rows = aligned_alloc(sizeof *rows, down.taps * x.count * sizeof *rows);
        sums = aligned_alloc(sizeof *sums, x.count * sizeof *sums);
        last = malloc(3 * x.size + 1);
        enough = rows && sums && last;
    }
    for (int64_t i = 0, row = 0; enough && i < y.count; i++) {
        int64_t first = down.first[i];

        for (row = row > first ? row : first; row < first + down.taps; row++) {
            const uint8_t *bytes = image + row * row_bytes;

            /* mix_row would read beyond the end of the picture. */
            if (row == y.size - 1)
                bytes = memcpy(last, bytes, 3 * x.size);
            mix_row(bytes, &across, x.count, rows + row % down.taps * x.count);
        }
        mix_rows(rows, &down, i, x.count, sums, out + 3 * i * x.count);
    }
    free(across.first);
    free(across.weights);
    free(down.first);
    free(down.weights);
    free(rows);
    free(sums);
    free(last);
    return enough;
}
