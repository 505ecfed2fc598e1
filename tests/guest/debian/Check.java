// HotSpot: its interpreter, both compilers, garbage collection under threads, implicit null checks by SIGSEGV, safepoints.
import java.math.*; import java.nio.file.*; import java.security.*; import java.util.*; import java.util.concurrent.*; import java.util.concurrent.atomic.*; import java.util.regex.*; import java.util.stream.*;
public class Check {
    record Point(int x, double y) {}
    sealed interface Shape permits Circle, Square {} record Circle(double r) implements Shape {} record Square(double a) implements Shape {}
    static double area(Shape s) { return s instanceof Circle c ? Math.PI * c.r() * c.r() : s instanceof Square q ? q.a() * q.a() : 0; }
    static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
    static volatile Object nothing;
    public static void main(String[] args) throws Exception {
        System.out.println(new Point(1, 2.5) + " " + area(new Circle(2)) + " " + area(new Square(3)) + " " + fib(24));
        long h = 1125899906842597L; for (int i = 0; i < 2_000_000; i++) h = 31 * h + (i ^ (h >>> 7)); System.out.println(h);
        double d = 0; for (int i = 1; i < 300_000; i++) d += Math.sin(i) / i + Math.sqrt(i) % 0.7; System.out.println(d);
        System.out.println((int) Double.NaN + " " + (long) 1e30 + " " + (int) -1e30f + " " + -7 / 2 + " " + -7 % 3 + " " + (-7 >>> 28) + " " + (byte) 300 + " " + 1.0f / 3 + " " + 0.1 + " " + Double.MIN_VALUE + " " + Integer.MIN_VALUE / -1);
        System.out.println(new BigInteger("123456789").pow(20).mod(BigInteger.valueOf(1_000_000_007)) + " " + BigDecimal.ONE.divide(new BigDecimal(7), new MathContext(40)) + " " + BigInteger.TWO.pow(521).subtract(BigInteger.ONE).isProbablePrime(10));
        System.out.println(HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest("tulk".repeat(5000).getBytes())) + " " + "x".repeat(3).hashCode());
        Map<Integer, Integer> groups = IntStream.range(0, 1000).boxed().collect(Collectors.groupingBy((Integer i) -> i % 7, TreeMap::new, Collectors.summingInt((Integer i) -> i))); System.out.println(groups);
        System.out.println(IntStream.range(0, 200_000).parallel().mapToLong(i -> (long) i * i % 97).sum());
        Matcher m = Pattern.compile("(\\w+)@(\\w+)\\.org").matcher("a@b.org, cd@ef.org"); while (m.find()) System.out.print(m.group(1) + "/" + m.group(2) + " "); System.out.println();
        int nulls = 0; for (int i = 0; i < 20_000; i++) { try { Object o = i % 100 == 0 ? nothing : "s"; o.hashCode(); } catch (NullPointerException e) { nulls++; } }
        int zeros = 0, bounds = 0; int[] a = new int[10]; for (int i = 0; i < 2000; i++) { try { a[i % 12] = 5 / (i % 5); } catch (ArithmeticException e) { zeros++; } catch (ArrayIndexOutOfBoundsException e) { bounds++; } } System.out.println(nulls + " " + zeros + " " + bounds);
        ExecutorService pool = Executors.newFixedThreadPool(6); AtomicLong sum = new AtomicLong(); ConcurrentHashMap<Integer, Integer> map = new ConcurrentHashMap<>(); List<Future<Integer>> fs = new ArrayList<>();
        for (int t = 0; t < 12; t++) { int n = t; fs.add(pool.submit(() -> { for (int i = 0; i < 20_000; i++) { sum.addAndGet(i % (n + 1)); map.merge(i % 50, 1, Integer::sum); synchronized (pool) { nothing = i % 2 == 0 ? null : "x"; } } return n; })); }
        int done = 0; for (Future<Integer> f : fs) done += f.get(); pool.shutdown(); System.out.println(done + " " + sum + " " + map.values().stream().mapToInt(i -> i).sum());
        List<byte[]> keep = new ArrayList<>(); long bytes = 0; for (int i = 0; i < 20_000; i++) { byte[] b = new byte[1000 + i % 3000]; bytes += b.length; if (i % 100 == 0) keep.add(b); } System.gc(); System.out.println(bytes + " " + keep.size());
        StringBuilder sb = new StringBuilder(); for (int i = 0; i < 50_000; i++) sb.append(i % 10).append((char) ('a' + i % 26)); System.out.println(sb.length() + " " + sb.toString().hashCode() + " " + "\u00df".toUpperCase() + " " + String.format("%08.3f|%-5s|%x", 3.14159, "ab", 255));
        try { deep(0); } catch (StackOverflowError e) { System.out.println("stack overflow"); }
        Process p = new ProcessBuilder("echo", "child").start(); System.out.println(new String(p.getInputStream().readAllBytes()).trim() + " " + p.waitFor());
        Path f = Path.of("java.tmp"); Files.writeString(f, "line\n".repeat(1000)); System.out.println(Files.size(f) + " " + Files.lines(f).count()); Files.delete(f);
        CompletableFuture<String> c = CompletableFuture.supplyAsync(() -> "async").thenCombine(CompletableFuture.supplyAsync(() -> "done"), (x, y) -> x + " " + y); System.out.println(c.get()); System.exit(19);
    }
    static int deep(int n) { return deep(n + 1) + 1; }
}
