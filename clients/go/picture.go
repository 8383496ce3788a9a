package visavis

import (
	"image"
	"image/draw"
	"os"
	"regexp"

	pb "visavis.internal/visavis/v1"
)

// A Picture is what a model looks at: a [File], [Encoded] bytes, [Raw] pixels, or a [Decoded] image.
// Prefer the file itself: other decoders round differently from the server's.
type Picture interface {
	image() (*pb.Image, error)
}

// File is the path of a JPEG, PNG or WebP file, which each call reads. If that fails, the call
// returns the error of package os.
type File string

// Encoded is the content of a JPEG, PNG or WebP file.
type Encoded []byte

// Raw is a picture of decoded pixels in upright orientation.
type Raw struct {
	// Format is the layout of Pixels. Pixels from OpenCV are BGR: sent as RGB, they give wrong
	// scores.
	Format        PixelFormat
	Width, Height int
	// Pixels are the rows from the top, without padding.
	Pixels []byte
}

// PixelFormat is the memory layout of [Raw] pixels.
type PixelFormat int32

// The layouts that the server accepts.
const (
	RGB  = PixelFormat(pb.PixelFormat_PIXEL_FORMAT_RGB)
	BGR  = PixelFormat(pb.PixelFormat_PIXEL_FORMAT_BGR)
	Gray = PixelFormat(pb.PixelFormat_PIXEL_FORMAT_GRAY)
	// NV12 is a Y plane, then interleaved U and V at half resolution: BT.601, limited range.
	NV12 = PixelFormat(pb.PixelFormat_PIXEL_FORMAT_NV12)
)

// Leaves room for the rest of the request.
const maxPictureBytes = maxMessageBytes - 64<<10

// A colon alone does not make a path a URL.
var url = regexp.MustCompile(`^([a-z][a-z0-9+.-]*://|data:[^/]*/)`)

func (f File) image() (*pb.Image, error) {
	if url.MatchString(string(f)) {
		return nil, invalidPicture("image is a URL, %.60q; download it and pass its bytes", f)
	}
	content, err := os.ReadFile(string(f))
	if err != nil {
		return nil, err
	}
	return Encoded(content).image()
}

func (e Encoded) image() (*pb.Image, error) {
	if err := checkSize(len(e)); err != nil {
		return nil, err
	}
	return &pb.Image{Source: &pb.Image_Encoded{Encoded: e}}, nil
}

func (r Raw) image() (*pb.Image, error) {
	if err := checkSize(len(r.Pixels)); err != nil {
		return nil, err
	}
	return &pb.Image{Source: &pb.Image_Raw{Raw: &pb.RawImage{
		Format: pb.PixelFormat(r.Format),
		Width:  *int32Pointer(r.Width),
		Height: *int32Pointer(r.Height),
		Data:   r.Pixels,
	}}}, nil
}

// Decoded returns the picture of an upright image in memory. Its alpha channel is dropped.
func Decoded(source image.Image) Raw {
	bounds := source.Bounds()
	width, height := bounds.Dx(), bounds.Dy()
	if gray, ok := source.(*image.Gray); ok {
		pixels := make([]byte, 0, width*height)
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			start := gray.PixOffset(bounds.Min.X, y)
			pixels = append(pixels, gray.Pix[start:start+width]...)
		}
		return Raw{Format: Gray, Width: width, Height: height, Pixels: pixels}
	}
	// Colours without premultiplied alpha.
	plain := image.NewNRGBA(image.Rect(0, 0, width, height))
	draw.Draw(plain, plain.Bounds(), source, bounds.Min, draw.Src)
	pixels := make([]byte, 0, 3*width*height)
	for i := 0; i < len(plain.Pix); i += 4 {
		pixels = append(pixels, plain.Pix[i:i+3]...)
	}
	return Raw{Format: RGB, Width: width, Height: height, Pixels: pixels}
}

func checkSize(size int) error {
	if size == 0 {
		return invalidPicture("image is empty")
	}
	if size > maxPictureBytes {
		return invalidPicture("image is %d bytes; the limit is %d", size, maxPictureBytes)
	}
	return nil
}
