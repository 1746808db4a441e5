// A Go program: goroutines, channels, timers, files, and an HTTP server over loopback and on port 8080.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"
)

func main() {
	var wait sync.WaitGroup
	results := make(chan int, 100)
	for i := 0; i < 100; i++ {
		wait.Add(1)
		go func(n int) {
			defer wait.Done()
			time.Sleep(time.Millisecond)
			results <- n
		}(i)
	}
	wait.Wait()
	close(results)
	sum := 0
	for n := range results {
		sum += n
	}
	fmt.Println("sum", sum)
	runtime.GC()

	if err := os.WriteFile("/tmp/go", []byte("written"), 0o600); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	content, _ := os.ReadFile("/tmp/go")
	fmt.Println("file", string(content))

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from Go, %s", r.URL.Path)
	})
	go func() { fmt.Println(http.ListenAndServe(":8080", nil)) }()
	for i := 0; i < 100; i++ {
		answer, err := http.Get("http://127.0.0.1:8080/loop")
		if err == nil {
			body, _ := io.ReadAll(answer.Body)
			fmt.Println("loopback:", string(body))
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("ready")
	select {}
}
