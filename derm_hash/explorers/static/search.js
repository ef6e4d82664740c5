// Coarse-to-fine search over typed arrays: the same hits in the same order as HashIndex.search.
// Coarse: hash codes within a Hamming radius. Fine: the distance between soft codes. Distances are
// compared in 32 bits, and equal distances keep the order of the database.

export const METRICS = ["cosine", "euclidean", "manhattan", "hamming"];
const round32 = Math.fround;

// Bits set in a 32-bit word, by adding neighbouring fields of 1, 2, 4 and then 8 bits.
function popcount(x) {
  x -= (x >>> 1) & 0x55555555;
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  return Math.imul((x + (x >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

// Soft codes (n * bits) -> hash codes in words of 32 bits (n * words).
function pack(codes, bits) {
  const words = Math.ceil(bits / 32), packed = new Int32Array(codes.length / bits * words);
  codes.forEach((value, at) => {
    const b = at % bits;
    if (value > 0.5) packed[(at - b) / bits * words + (b >> 5)] |= 1 << (b & 31);
  });
  return packed;
}

function dot(a, i, b, j, bits) {
  let sum = 0;
  for (let n = 0; n < bits; n++) sum += a[i + n] * b[j + n];
  return sum;
}

export class Index {
  // codes: Float32Array (n * bits) of soft codes.
  constructor(codes, bits) {
    Object.assign(this, {codes, bits, size: codes.length / bits, packed: pack(codes, bits)});
    this.squares = Float64Array.from({length: this.size},
      (_, i) => dot(codes, i * bits, codes, i * bits, bits));
  }

  // The k nearest of a code (Float32Array of bits), as {ids, hamming, distance, counts, within}.
  // radius: null for no limit; skip: an id that is left out; among: Uint8Array, 1 where searched.
  // counts: images at each Hamming distance from 0 to bits.
  search(code, {k = 10, radius = 4, rank = "cosine", skip = -1, among = null} = {}) {
    const {size, bits, packed} = this, own = pack(code, bits), words = own.length, limit = radius ?? bits;
    const counts = new Uint32Array(bits + 1), found = [], square = dot(code, 0, code, 0, bits);
    for (let i = 0; i < size; i++) {
      if (i === skip || (among && !among[i])) continue;
      let hamming = 0;
      for (let w = 0; w < words; w++) hamming += popcount(packed[i * words + w] ^ own[w]);
      counts[hamming]++;
      if (hamming > limit) continue;
      const distance = rank === "hamming" ? hamming : this.distance(code, square, i, rank);
      if (found.length === k && !(distance < found[k - 1].distance)) continue;
      let place = found.length < k ? found.length : k - 1;
      for (; place && distance < found[place - 1].distance; place--) found[place] = found[place - 1];
      found[place] = {id: i, hamming, distance};
    }
    const [ids, hamming, distance] = ["id", "hamming", "distance"].map(name => found.map(hit => hit[name]));
    return {ids, hamming, distance, counts, within: counts.subarray(0, limit + 1).reduce((a, b) => a + b)};
  }

  // Sums are in 64 bits, as in derm_hash.retrieval.
  distance(code, square, i, rank) {
    const {codes, bits} = this, at = i * bits;
    if (rank === "cosine") {
      const norms = Math.sqrt(square * this.squares[i]);
      const same = square === this.squares[i] ? 1 : 0;  // for codes of zeros
      const cosine = norms > 0 ? dot(code, 0, codes, at, bits) / norms : same;
      return round32(Math.max(1 - cosine, 0));
    }
    let sum = 0;
    for (let b = 0; b < bits; b++) {
      const d = round32(code[b] - codes[at + b]);
      sum += rank === "euclidean" ? d * d : Math.abs(d);
    }
    return round32(rank === "euclidean" ? Math.sqrt(sum) : sum);
  }
}
