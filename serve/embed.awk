# embed.awk - a page as C strings: awk -f serve/embed.awk serve/dump.html >dump_html.c
#
# The line that holds only @@DATA@@ cuts the page in two: cx__dump_html[0] and cx__dump_html[1].
BEGIN { print "/* made by serve/embed.awk */\nextern const char *const cx__dump_html[2];\nconst char *const cx__dump_html[2] = {" }
/^@@DATA@@$/ { print ","; next }
{
	gsub(/\\/, "&&")
	gsub(/"/, "\\\\&")
	gsub(/\?\?/, "?\" \"?")
	print "\"" $0 "\\n\""
}
END { print "};" }
