// call HOST:PORT: one unary call by grpc-go, in a static binary. Messages are JSON in raw bytes: no code is generated.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

type raw struct{}

func (raw) Name() string                          { return "proto" }
func (raw) Marshal(message any) ([]byte, error)   { return *message.(*[]byte), nil }
func (raw) Unmarshal(data []byte, into any) error { *into.(*[]byte) = data; return nil }

func call(target string) (string, error) {
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request, answer := []byte(`{"message": "hello"}`), []byte{}
	err = connection.Invoke(ctx, "/hairpin.test.Echo/Unary", &request, &answer, grpc.ForceCodec(raw{}))
	return string(answer), err
}

func main() {
	answer, err := call(os.Args[1])
	if err != nil {
		fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
	fmt.Println("answer 200", answer)
}
