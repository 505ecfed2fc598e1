# Codecs with much SIMD code, in each of the processor's vector extensions: their output does not depend on it.
export HOME=$PWD AV_LOG_FORCE_NOCOLOR=1
exact="-flags +bitexact -fflags +bitexact -sws_flags bicubic+accurate_rnd+bitexact -threads 2"
picture="-f lavfi -i testsrc2=size=176x144:rate=10:duration=1"
sound="-f lavfi -i sine=frequency=440:sample_rate=44100:duration=1"
# $1 is the guest, also where its judge runs this.
case $1 in
amd64 | i386)
    sse=mmx+mmxext+sse+sse2
    more=yes levels="all $sse $sse+sse3+ssse3+sse4.1+sse4.2+avx+avx2+fma3+bmi1+bmi2" ;;
# Judged by another machine: only what is exact on all.
*) more= levels="all 0" ;;
esac
run() { if [ "$level" = all ]; then ffmpeg -nostdin -v error -y "$@"; else ffmpeg -cpuflags "$level" -nostdin -v error -y "$@"; fi; }
for level in $levels; do
    echo level
    run $picture $exact -f rawvideo -pix_fmt yuv420p - | md5sum
    run $picture $exact -vf scale=320x200,hflip,unsharp,format=rgb24 -f framemd5 - | tail -2
    for codec in "mpeg4 avi" "mpeg2video m2v" "mjpeg avi" "ffv1 nut" "huffyuv nut" ${more:+"libx264 h264"}; do
        set -- $codec
        options="-c:v $1 -q:v 4 -dct int -idct simple"
        [ $1 != libx264 ] || options="-c:v libx264 -preset veryfast -qp 24 -x264-params threads=2:mbtree=0"
        run $picture $exact $options -pix_fmt $([ $1 = mjpeg ] && echo yuvj420p || echo yuv420p) out.$2
        echo "$1 $? $(md5sum <out.$2)"
        run $exact -idct simple -i out.$2 $exact -f framemd5 - | tail -2
    done
    run $sound $exact -c:a flac out.flac; md5sum out.flac
    run $exact -i out.flac $exact -af "volume=0.5:precision=fixed,aresample=osf=s16" -f s16le - | md5sum
done
[ $more ] || exit 0
# Floating point, in the same extension natively and under tulk.
level=${levels##* }
run $sound $exact -af aresample=48000,lowpass=f=3000 -c:a aac -b:a 96k out.aac; md5sum out.aac
run $exact -i out.aac $exact -f f32le - | md5sum
run $sound $exact -af "afftfilt=real='re*0.5':imag='im'" -f f32le - | md5sum
