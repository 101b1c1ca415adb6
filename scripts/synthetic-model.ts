import { parseArgs } from 'node:util'
import { asError } from '../src/base/index.ts'
import { parseSize } from '../src/cli/units.ts'
import { writeSyntheticModel } from './lib/synthetic-model.ts'

const USAGE = 'usage: node scripts/synthetic-model.ts DIR [--size 1GiB] [--seed 1] [--shards 4]'

try {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { size: { type: 'string', default: '1GiB' }, seed: { type: 'string', default: '1' }, shards: { type: 'string', default: '4' } }
  })
  const [directory] = positionals
  if (directory === undefined || positionals.length > 1) throw new Error(USAGE)
  const bytes = parseSize(values.size)
  const started = performance.now()
  let written = 0
  await writeSyntheticModel(directory, {
    bytes,
    seed: Number(values.seed),
    shards: Number(values.shards),
    onProgress: ({ bytesDone }) => { written = bytesDone }
  })
  const seconds = (performance.now() - started) / 1000
  console.error(`${written} bytes in ${seconds.toFixed(1)} s (${(written / 2 ** 30 / seconds).toFixed(2)} GiB/s)`)
} catch (error) {
  console.error(asError(error).message)
  process.exitCode = 2
}
