// The smallest useful program: what one start costs.
#include <stdio.h>
int main(void) {
    puts("hello");
    return 0;
}
