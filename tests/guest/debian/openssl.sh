export HOME=$PWD RANDFILE=$PWD/rnd OPENSSL_CONF=/dev/null
seq 5000 >plain
for d in md5 sha1 sha224 sha256 sha384 sha512 sha512-256 sha3-256 sha3-512 blake2b512 sm3 ripemd160; do openssl dgst -$d plain 2>&1; done
openssl dgst -sha256 -hmac key plain
for c in aes-128-cbc aes-256-ctr aes-192-ofb aes-256-ecb chacha20 camellia-256-cbc aria-128-cbc des-ede3-cbc sm4-ctr; do
    openssl enc -$c -K 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -iv 000102030405060708090a0b0c0d0e0f -in plain -out cipher 2>/dev/null
    openssl enc -d -$c -K 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -iv 000102030405060708090a0b0c0d0e0f -in cipher -out back 2>/dev/null
    cmp plain back && echo "$c $(sha256sum <cipher)"
done
openssl enc -aes-256-cbc -pbkdf2 -pass pass:secret -S 0102030405060708 -in plain | sha256sum
for key in "RSA -pkeyopt rsa_keygen_bits:1024" "EC -pkeyopt ec_paramgen_curve:P-256" "EC -pkeyopt ec_paramgen_curve:P-384" "EC -pkeyopt ec_paramgen_curve:secp256k1" ED25519 ED448; do
    openssl genpkey -algorithm $key -out key.pem 2>/dev/null; openssl pkey -in key.pem -pubout -out pub.pem; echo "$key $?"
    openssl pkeyutl -sign -rawin -inkey key.pem -in plain -out sig 2>/dev/null; openssl pkeyutl -verify -rawin -pubin -inkey pub.pem -in plain -sigfile sig
    echo x >>plain; openssl pkeyutl -verify -rawin -pubin -inkey pub.pem -in plain -sigfile sig; echo "changed $?"; seq 5000 >plain
done
openssl genpkey -algorithm X25519 -out a.pem; openssl genpkey -algorithm X25519 -out b.pem
openssl pkey -in a.pem -pubout -out a.pub; openssl pkey -in b.pem -pubout -out b.pub
[ "$(openssl pkeyutl -derive -inkey a.pem -peerkey b.pub | sha256sum)" = "$(openssl pkeyutl -derive -inkey b.pem -peerkey a.pub | sha256sum)" ]; echo "agreed $?"
openssl prime 170141183460469231731687303715884105727; openssl prime -hex FFFFFFFFFFFFFFFFFFFFFFFFFFFFFF61
openssl rand -hex 16 | wc -c; openssl base64 -in plain | openssl base64 -d | cmp - plain; echo "base64 $?"
openssl kdf -keylen 16 -kdfopt digest:SHA256 -kdfopt key:secret -kdfopt salt:salt HKDF
