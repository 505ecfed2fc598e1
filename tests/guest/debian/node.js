// V8's interpreter and both compilers, its garbage collector, workers, crypto, promises, WebAssembly.
const crypto = require('crypto'), { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const fs = require('fs'), zlib = require('zlib'), { spawnSync } = require('child_process'), net = require('net');
if (!isMainThread) { let s = 0; for (let i = 0; i < workerData; i++) s = (s * 31 + i) | 0; parentPort.postMessage(s); return; }
console.log(JSON.stringify({ a: [1, 2.5, null], b: { c: 'é\u2028' } }), JSON.parse('{"x":[1e3,-0.5]}').x);
console.log('2024-02-29'.replace(/(\d+)-(\d+)-(\d+)/, '$3.$2.$1'), 'aBc'.match(/(?<=a)[A-Z]/u)[0], [...'a1b22'.matchAll(/\d+/g)].map(m => m.index));
for (const h of ['md5', 'sha1', 'sha256', 'sha512']) console.log(h, crypto.createHash(h).update('tulk'.repeat(1000)).digest('hex'));
const cipher = crypto.createCipheriv('aes-256-gcm', Buffer.alloc(32, 1), Buffer.alloc(12, 2));
console.log(cipher.update('secret', 'utf8', 'hex') + cipher.final('hex'), cipher.getAuthTag().toString('hex'));
console.log(crypto.pbkdf2Sync('pw', 'salt', 1000, 16, 'sha256').toString('hex'), crypto.scryptSync('pw', 'salt', 16, { N: 1024 }).toString('hex'));
const { privateKey, publicKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
console.log(crypto.verify('sha256', Buffer.from('m'), publicKey, crypto.sign('sha256', Buffer.from('m'), privateKey)));
function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
console.log(fib(24), 0.1 + 0.2, (123.456).toFixed(2), 1e21, -0, 5e-324, (255).toString(36), 2n ** 100n, Math.hypot(3, 4), Math.sin(1), Math.pow(2, 0.5), Math.fround(0.1), 7.5 % 2, -7 >>> 28, 1 << 31);
let x = 0; for (let i = 0; i < 300000; i++) { x = (x + Math.imul(i, 0x9e3779b1) ^ i >>> 3) | 0; } console.log(x);
const f = new Float64Array(1000).map((_, i) => Math.sqrt(i) * Math.cos(i)); console.log(f.reduce((a, b) => a + b).toFixed(9), f.sort()[0]);
class P { #v = 1; get v() { return this.#v; } static *gen(n) { while (n--) yield n; } } console.log(new P().v, [...P.gen(4)]);
let objs = []; for (let i = 0; i < 60000; i++) objs.push({ i, s: 'k' + i, n: { d: i / 3 } }); objs = objs.filter(o => o.i % 7 == 0);
console.log(objs.length, objs.reduce((a, o) => a + o.n.d, 0).toFixed(6)); const m = new Map(objs.map(o => [o.s, o])); console.log(m.get('k49').i, m.size);
console.log(zlib.gunzipSync(zlib.gzipSync('z'.repeat(10000))).length, spawnSync('echo', ['child']).stdout.toString().trim(), spawnSync('sh', ['-c', 'kill -9 $$']).signal);
try { null.x } catch (e) { console.log(e.message) } try { (function r() { r() })() } catch (e) { console.log(e instanceof RangeError) }
const wasm = new WebAssembly.Instance(new WebAssembly.Module(Buffer.from('0061736d0100000001070160027f7f017f030201000707010361646400000a09010700200020016a0b', 'hex'))); console.log(wasm.exports.add(40, 2));
fs.writeFileSync('node.tmp', 'x'.repeat(5000)); console.log(fs.statSync('node.tmp').size); fs.unlinkSync('node.tmp');
const later = (ms, v) => new Promise(r => setTimeout(r, ms, v));
(async () => {
  console.log(await Promise.all([later(20, 'a'), later(10, 'b'), later(1, 'c')]), await Promise.race([later(300, 'slow'), later(5, 'fast')]));
  console.log(await Promise.all([1000, 2000, 3000].map(n => new Promise((r, j) => { const w = new Worker(__filename, { workerData: n }); w.on('message', r); w.on('error', j); }))));
  const server = net.createServer(s => s.on('data', d => s.end(d.toString().toUpperCase())));
  await new Promise(r => server.listen(0, '127.0.0.1', r));
  console.log(await new Promise(r => { const c = net.connect(server.address().port, '127.0.0.1', () => c.write('hello')); c.on('data', d => r(d.toString())); })); server.close();
  console.log((await crypto.subtle.digest('SHA-256', Buffer.from('a'))).byteLength, (await fs.promises.readFile(__filename)).length > 100);
  process.on('exit', c => console.log('exit', c)); process.exitCode = 23;
})();
