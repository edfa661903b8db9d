/* SPDX-License-Identifier: MIT */
/* In place of the pager library where nothing is to be paged. */
__attribute__((visibility("default"))) extern const int tmem_dummy_pager;
const int tmem_dummy_pager = 1;
