-- LuaJIT's own compiler, its interpreter in assembly, and its foreign function interface.
local bit, ffi = require "bit", require "ffi"
local s = 0 for i = 1, 3e6 do s = s + i % 7 * 0.5 end print(s)
local h = 0 for i = 1, 1e6 do h = bit.bxor(bit.rol(h, 5), i) end print(h, bit.tohex(h))
local t = {} for i = 1, 1e5 do t[i] = (i * 7919) % 100003 end table.sort(t) print(t[1], t[50000], t[#t])
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end print(fib(25))
print(("hello world"):gsub("o", "0"), ("%5.2f|%d|%s|%g"):format(3.14159, 42, "x", 1e100), ("key=val"):match("(%w+)=(%w+)"))
local co = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i * i) end end) print(co(), co(), co())
ffi.cdef "typedef struct { int a; double b; } pair; int abs(int); double pow(double, double); int snprintf(char *, size_t, const char *, ...);"
local p = ffi.new("pair[100]") for i = 0, 99 do p[i].a = i p[i].b = i / 4 end local q = 0 for r = 1, 2000 do for i = 0, 99 do q = q + p[i].a * p[i].b end end print(q)
print(ffi.C.abs(-7), ffi.C.pow(2, 0.5), ffi.sizeof "pair", tostring(2LL ^ 62LL), tostring(0xffffffffffffffffULL / 3))
local buf = ffi.new("char[64]") ffi.C.snprintf(buf, 64, "%d %s %.3f", ffi.new("int", 5), "str", 2.5) print(ffi.string(buf))
local parts = {} for i = 1, 20000 do parts[#parts + 1] = i .. "," end local str = table.concat(parts) print(#str, str:sub(-12))
print(pcall(function() error({ code = 7 }) end), select("#", pcall(error)), math.floor(-2.5), -7 % 3, 2 ^ 0.5, 1 / 0, -1 / 0, 0 / 0 ~= 0 / 0)
for i = 1, 200 do local f = loadstring("local x = ... return x * " .. i .. " + 1") s = s + f(i) end print(s, jit.status() and "jit on")
os.exit(11)
