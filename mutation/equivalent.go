package main

// equivalent lists generated mutations that were read and found to change
// nothing that a test could see, each with its reason. A key names the
// function, its line, and the change, as -list prints them.
var equivalents = map[string]string{}
