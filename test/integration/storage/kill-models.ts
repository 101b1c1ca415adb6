import { seededRandom } from '../../../src/base/index.ts'
import { contentOf, raggedSizes, sampleOf, type Sample } from '../../compliance/store-fixtures.ts'

/** Three models, of which two share a file and blocks. The same for the same seed. */
export function killModels (seed: number): Sample[] {
  const random = seededRandom(seed)
  const shared = contentOf(random, 400_123)
  const sharedSizes = raggedSizes(random, shared.length)
  const own = contentOf(random, 300_077)
  const ownSizes = raggedSizes(random, own.length)
  const more = contentOf(random, 900_001)
  return [
    sampleOf([{ path: 'shared', content: shared, sizes: sharedSizes }, { path: 'own', content: own, sizes: ownSizes }]),
    sampleOf([{ path: 'shared', content: shared, sizes: sharedSizes }, { path: 'shifted', content: Buffer.concat([Buffer.from('x'), own]), sizes: [1, ...ownSizes] }]),
    sampleOf([{ path: 'more', content: more, sizes: raggedSizes(random, more.length) }])
  ]
}
