// Reads many archives with Go's archive/tar, as readers.py does with the others, and prints the same lines.
package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

type line struct {
	Reader  string  `json:"reader"`
	Index   int     `json:"index"`
	Entries [][]any `json:"entries"`
	Error   *string `json:"error"`
}

func kind(flag byte) string {
	switch flag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse:
		return "f"
	case tar.TypeDir:
		return "d"
	case tar.TypeSymlink:
		return "l"
	case tar.TypeLink:
		return "h"
	case tar.TypeChar:
		return "c"
	case tar.TypeBlock:
		return "b"
	case tar.TypeFifo:
		return "p"
	}
	return string(rune(flag))
}

func read(index int, archive []byte) line {
	found := line{Reader: "Go", Index: index, Entries: [][]any{}}
	reader := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return found
		}
		if err != nil {
			text := err.Error()
			found.Error = &text
			return found
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, link := hex.EncodeToString([]byte(header.Name)), hex.EncodeToString([]byte(header.Linkname))
		found.Entries = append(found.Entries, []any{name, kind(header.Typeflag), header.Size, link})
	}
}

func main() {
	data, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	for index := 0; len(data) > 0; index++ {
		length := binary.LittleEndian.Uint32(data)
		text, err := json.Marshal(read(index, data[4:4+length]))
		if err != nil {
			panic(err)
		}
		fmt.Println(string(text))
		data = data[4+length:]
	}
}
