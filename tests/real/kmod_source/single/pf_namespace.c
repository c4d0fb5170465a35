// SPDX-License-Identifier: GPL-2.0
/* Uses symbols of a namespace of the kernel, and imports it; the tests take the import away. */
#include <crypto/internal/cipher.h>
#include "common.h"

MODULE_IMPORT_NS(CRYPTO_INTERNAL);
void *pf_kept_open __used = crypto_cipher_setkey;
MODULE_LICENSE("GPL");
