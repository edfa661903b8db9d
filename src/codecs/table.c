/* SPDX-License-Identifier: MIT */
/* The table of codecs. */
#include "codec.h"

#include "zstdpage.h"

const struct tmem_codec *const tmem_codecs[] = {
	&tmem_codec_same,
	&tmem_codec_lz4,
	&tmem_codec_raw,
	&tmem_codec_zstd,
	&tmem_codec_lz4_dict,
	&tmem_codec_zstd_dict,
	NULL,
};

const struct tmem_codec *tmem_codec_of(unsigned form)
{
	const struct tmem_codec *const *codec;

	for (codec = tmem_codecs; *codec; codec++)
		if ((*codec)->form == form)
			return *codec;
	return NULL;
}

void tmem_codecs_check(void)
{
	tmem_zstd_check();
}
