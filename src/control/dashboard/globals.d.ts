// What the libraries' scripts leave in the page, and the shapes of the API's answers, from the schemas of the program.

import type * as d3Geo from 'd3-geo';
import type * as topojsonClient from 'topojson-client';
import type UPlot from 'uplot';
import type * as v from 'valibot';
import type * as schemas from '../api/response-schemas.ts';

declare global {
  const d3: typeof d3Geo;
  const topojson: typeof topojsonClient;
  const uPlot: typeof UPlot;

  namespace Api {
    type Status = v.InferOutput<typeof schemas.status>;
    type Backend = v.InferOutput<typeof schemas.backend>;
    type BackendList = v.InferOutput<typeof schemas.backendList>;
    type Countries = v.InferOutput<typeof schemas.countries>;
    type Country = Countries['countries'][number];
    type Regions = v.InferOutput<typeof schemas.regions>;
    type Explanation = v.InferOutput<typeof schemas.explanation>;
    type Event = v.InferOutput<typeof schemas.event>;
    type Gap = v.InferOutput<typeof schemas.gap>;
  }
}
