package smtp

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// body is one that is at hand.
type body []byte

func (b body) NewReader() io.Reader { return bytes.NewReader(b) }
func (b body) Size() int64          { return int64(len(b)) }
func (b body) Close() error         { return nil }

// tenKiB is a body of ordinary lines, some of which begin with a dot.
var tenKiB = body(bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog, and nothing ever comes of it..\r\n.\r\n"), 10<<10/80))

func BenchmarkNamesRecipients(b *testing.B) {
	for _, size := range []int{2 << 10, 20 << 10, 200 << 10} {
		text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog. The quick brown fox.\r\n", size/68+1))[:size]
		b.Run(fmt.Sprintf("inline/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				j := Mail{Body: body(text)}
				j.NamesRecipients()
			}
		})
		name := filepath.Join(b.TempDir(), "x")
		os.WriteFile(name, text, 0o600)
		f, _ := os.Open(name)
		defer f.Close()
		b.Run(fmt.Sprintf("file/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				j := Mail{Body: fileBody{f, int64(size)}}
				j.NamesRecipients()
			}
		})
	}
}

type fileBody struct {
	f *os.File
	n int64
}

func (b fileBody) NewReader() io.Reader { return io.NewSectionReader(b.f, 0, b.n) }
func (b fileBody) Size() int64          { return b.n }
func (b fileBody) Close() error         { return nil }
