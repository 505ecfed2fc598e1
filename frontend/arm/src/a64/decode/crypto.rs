//! Cryptography: the "Cryptographic" classes of chapter C4.1.

use super::table;
use crate::a64::crypto as lift;

table! {
    "Cryptographic AES" {
        aese      "01001110 00 10100 00100 10 rn:5 rd:5" [Aes];
        aesd      "01001110 00 10100 00101 10 rn:5 rd:5" [Aes];
        aesmc     "01001110 00 10100 00110 10 rn:5 rd:5" [Aes];
        aesimc    "01001110 00 10100 00111 10 rn:5 rd:5" [Aes];
    }
    "Cryptographic three-register SHA" {
        sha1c     "01011110 00 0 rm:5 0 000 00 rn:5 rd:5" [Sha1];
        sha1p     "01011110 00 0 rm:5 0 001 00 rn:5 rd:5" [Sha1];
        sha1m     "01011110 00 0 rm:5 0 010 00 rn:5 rd:5" [Sha1];
        sha1su0   "01011110 00 0 rm:5 0 011 00 rn:5 rd:5" [Sha1];
        sha256h   "01011110 00 0 rm:5 0 100 00 rn:5 rd:5" [Sha256];
        sha256h2  "01011110 00 0 rm:5 0 101 00 rn:5 rd:5" [Sha256];
        sha256su1 "01011110 00 0 rm:5 0 110 00 rn:5 rd:5" [Sha256];
    }
    "Cryptographic two-register SHA" {
        sha1h     "01011110 00 10100 00000 10 rn:5 rd:5" [Sha1];
        sha1su1   "01011110 00 10100 00001 10 rn:5 rd:5" [Sha1];
        sha256su0 "01011110 00 10100 00010 10 rn:5 rd:5" [Sha256];
    }
    "Cryptographic three-register SHA 512" {
        sha512h   "11001110 011 rm:5 1 0 00 00 rn:5 rd:5" [Sha512];
        sha512h2  "11001110 011 rm:5 1 0 00 01 rn:5 rd:5" [Sha512];
        sha512su1 "11001110 011 rm:5 1 0 00 10 rn:5 rd:5" [Sha512];
        rax1      "11001110 011 rm:5 1 0 00 11 rn:5 rd:5" [Sha3];
        sm3partw1 "11001110 011 rm:5 1 1 00 00 rn:5 rd:5" [Sm3];
        sm3partw2 "11001110 011 rm:5 1 1 00 01 rn:5 rd:5" [Sm3];
        sm4ekey   "11001110 011 rm:5 1 1 00 10 rn:5 rd:5" [Sm4];
    }
    "Cryptographic two-register SHA 512" {
        sha512su0 "11001110 110 00000 1000 00 rn:5 rd:5" [Sha512];
        sm4e      "11001110 110 00000 1000 01 rn:5 rd:5" [Sm4];
    }
    "Cryptographic four-register" {
        eor3      "11001110 000 rm:5 0 ra:5 rn:5 rd:5" [Sha3];
        bcax      "11001110 001 rm:5 0 ra:5 rn:5 rd:5" [Sha3];
        sm3ss1    "11001110 010 rm:5 0 ra:5 rn:5 rd:5" [Sm3];
    }
    "Cryptographic three-register, imm2" {
        sm3tt     "11001110 010 rm:5 10 idx2:2 tt:2 rn:5 rd:5" [Sm3];
    }
    "Cryptographic XAR" {
        xar       "11001110 100 rm:5 imm6:6 rn:5 rd:5" [Sha3];
    }
}
