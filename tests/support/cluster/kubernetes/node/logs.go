package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A container's log in the form that container runtimes write: time, stream, whether the line is whole, text.
type logFile struct {
	mu   sync.Mutex
	file *os.File
}

const (
	logSuffix      = ".log"
	previousSuffix = ".previous.log"
)

// Opens the log of a container's next run and puts that of the last aside.
func openLog(folder, container string) (*logFile, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(folder, container+logSuffix)
	if err := os.Rename(path, filepath.Join(folder, container+previousSuffix)); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	return &logFile{file: file}, nil
}

func (l *logFile) copy(stream string, from *os.File, done chan<- struct{}) {
	defer func() {
		from.Close()
		done <- struct{}{}
	}()
	reader := bufio.NewReaderSize(from, 16*1024)
	for {
		line, partial, err := reader.ReadLine()
		if err != nil {
			if err != io.EOF {
				fmt.Fprintf(os.Stderr, "log: %v\n", err)
			}
			return
		}
		tag := "F"
		if partial {
			tag = "P"
		}
		l.mu.Lock()
		fmt.Fprintf(l.file, "%s %s %s %s\n", time.Now().UTC().Format(time.RFC3339Nano), stream, tag, line)
		l.mu.Unlock()
	}
}

func (l *logFile) close() { l.file.Close() }
