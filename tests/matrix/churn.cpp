// SPDX-License-Identifier: MIT
//
// A multi-threaded C++ program with heavy malloc churn, as the matrix wants
// it: every block carries its own pattern, computed from its number, and is
// verified whole before it is freed, moved to another thread or grown.  Each
// thread also keeps a few mappings with guard pages that it unmaps and makes
// anew.  Prints one line that depends on what it read, not on the timing.
//
// usage: churn MIB THREADS ROUNDS [SEED]

#include <atomic>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unordered_map>
#include <vector>

namespace
{

std::atomic<uint64_t> wrong;

// Half of each block is text-like and compresses, half doesn't so well.
uint8_t pattern(uint64_t id, size_t i)
{
	uint64_t x = (id + 1) * 0x9E3779B97F4A7C15u;

	if (i & 64)
		return static_cast<uint8_t>("transcendent memory "[(id + i) % 20]);
	return static_cast<uint8_t>(x >> (i & 7) * 8) ^
	       static_cast<uint8_t>(i >> 8);
}

struct Block {
	uint64_t id = 0;
	size_t size = 0;
	uint8_t *data = nullptr;

	void fill(size_t from)
	{
		for (size_t i = from; i < size; i++)
			data[i] = pattern(id, i);
	}

	uint64_t verify() const
	{
		uint64_t sum = 0;

		for (size_t i = 0; i < size; i++) {
			if (data[i] != pattern(id, i))
				wrong++;
			sum = sum * 31 + data[i];
		}
		return sum;
	}
};

// Where threads leave blocks for each other.
struct Exchange {
	std::mutex lock;
	std::vector<Block> blocks;
};

Exchange exchange;

size_t random_size(std::mt19937_64 &rng)
{
	switch (rng() % 8) {
	case 0:
		return 150000 + rng() % 200000; // mmapped by malloc
	case 1:
	case 2:
		return 4096 + rng() % 30000;
	default:
		return 16 + rng() % 2000;
	}
}

Block make(uint64_t id, std::mt19937_64 &rng)
{
	Block b;

	b.id = id;
	b.size = random_size(rng);
	b.data = static_cast<uint8_t *>(malloc(b.size));
	if (!b.data)
		abort();
	b.fill(0);
	return b;
}

void drop(Block &b)
{
	b.verify();
	free(b.data);
	b.data = nullptr;
}

void grow(Block &b, std::mt19937_64 &rng)
{
	size_t old = b.size;

	b.verify();
	b.size += rng() % (b.size + 1);
	auto *p = static_cast<uint8_t *>(realloc(b.data, b.size));
	if (!p)
		abort();
	b.data = p;
	b.fill(old);
}

void swap_with_others(Block &b)
{
	std::lock_guard<std::mutex> guard(exchange.lock);

	if (exchange.blocks.size() < 64) {
		exchange.blocks.push_back(b);
		b.data = nullptr;
	} else {
		std::swap(exchange.blocks[b.id % 64], b);
	}
}

// A mapping with a guard page at each end, as stacks and sandboxes have.
class Guarded
{
	static constexpr size_t PAGE = 4096, PAGES = 32;
	uint8_t *map_;
	uint64_t id_;

      public:
	explicit Guarded(uint64_t id) : id_(id)
	{
		void *p = mmap(nullptr, (PAGES + 2) * PAGE, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED ||
		    mprotect(static_cast<uint8_t *>(p) + PAGE, PAGES * PAGE,
			     PROT_READ | PROT_WRITE))
			abort();
		map_ = static_cast<uint8_t *>(p) + PAGE;
		for (size_t i = 0; i < PAGES * PAGE; i++)
			map_[i] = pattern(id_, i);
		mprotect(map_, PAGES * PAGE, PROT_READ);
	}
	Guarded(const Guarded &) = delete;
	Guarded &operator=(const Guarded &) = delete;
	~Guarded()
	{
		for (size_t i = 0; i < PAGES * PAGE; i++)
			if (map_[i] != pattern(id_, i))
				wrong++;
		munmap(map_ - PAGE, (PAGES + 2) * PAGE);
	}
};

void worker(unsigned me, size_t bytes, unsigned rounds, uint64_t seed)
{
	std::mt19937_64 rng(seed * 1000 + me);
	std::vector<Block> mine;
	std::map<uint64_t, std::string> ordered;
	std::unordered_map<uint64_t, std::unique_ptr<Guarded>> guarded;
	uint64_t id = static_cast<uint64_t>(me) << 40;
	size_t held = 0;

	while (held < bytes) {
		mine.push_back(make(id++, rng));
		held += mine.back().size;
	}
	size_t steps = mine.size() * rounds;
	for (size_t s = 0; s < steps; s++) {
		Block &b = mine[rng() % mine.size()];

		switch (rng() % 8) {
		case 0:
			if (b.size < 100000)
				grow(b, rng);
			break;
		case 1:
			swap_with_others(b);
			break;
		case 2:
			ordered[rng() % 4000] = std::to_string(s);
			guarded[rng() % 16] =
				std::unique_ptr<Guarded>(new Guarded(s));
			break;
		case 3:
			b.verify();
			break;
		default:
			drop(b);
		}
		if (!b.data)
			b = make(id++, rng);
	}
	for (Block &b : mine)
		drop(b);
	for (const auto &o : ordered)
		if (o.second.empty())
			wrong++;
}

} // namespace

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: churn MIB THREADS ROUNDS [SEED]\n");
		return 2;
	}
	size_t bytes = strtoul(argv[1], nullptr, 10) << 20;
	unsigned nr_threads = static_cast<unsigned>(atoi(argv[2]));
	unsigned rounds = static_cast<unsigned>(atoi(argv[3]));
	uint64_t seed = argc > 4 ? strtoul(argv[4], nullptr, 10) : 1;
	std::vector<std::thread> threads;

	for (unsigned t = 0; t < nr_threads; t++)
		threads.emplace_back(worker, t, bytes / nr_threads, rounds,
				     seed);
	for (auto &t : threads)
		t.join();
	for (Block &b : exchange.blocks)
		drop(b);
	printf("churn: seed %" PRIu64 ", %s, %" PRIu64 " bytes wrong\n", seed,
	       dlsym(RTLD_DEFAULT, "mallctl") ? "jemalloc" : "libc malloc",
	       wrong.load());
	return wrong.load() != 0;
}
