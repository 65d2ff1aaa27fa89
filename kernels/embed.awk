# embed.awk - device sources as C strings: awk -f kernels/embed.awk kernels/a.cl.h kernels/b.cl.h ... >texts.c
#
# One row {"a", "text"} per file. #include "x" is replaced by the text of x, except that kernels/*.cl.h are left out: they
# are rows of their own, and the host puts them in order. cuda16.h is not for OpenCL.
function emit(file,    line, inc)
{
	while ((getline line < file) > 0) {
		if (line ~ /^#include "/) {
			inc = line
			sub(/^#include "/, "", inc)
			sub(/".*/, "", inc)
			if (inc !~ /\.cl\.h$/ && inc !~ /cuda16\.h$/) emit(inc)
			continue
		}
		gsub(/\\/, "&&", line)
		gsub(/"/, "\\\\&", line)
		print "\"" line "\\n\""
	}
	close(file)
}
BEGIN {
	print "/* made by kernels/embed.awk */"
	print "#include \"backends/opencl/texts.h\""
	print "const cx__kernel_text cx__kernel_texts[] = {"
	for (i = 1; i < ARGC; i++) {
		name = ARGV[i]
		sub(/.*\//, "", name)
		sub(/\..*/, "", name)
		print "{\"" name "\","
		emit(ARGV[i])
		print "},"
	}
	print "{0, 0}};"
	exit
}
