// Multi-port scratchpad memory: every port is independent of the others.
// Read: en and addr in one cycle, data in the next, held until the next en.
// Write: the lanes whose bit in `lanes` is set. Ports are concatenated, port 0 in the lowest bits.
module signmask_sram #(
    parameter NAME = "sram",
    parameter WIDTH = 8,
    parameter DEPTH = 16,
    parameter ADDRESS = 4,
    parameter LANES = 1,
    parameter READS = 1,
    parameter WRITES = 1
) (
    input  wire                      clk,
    input  wire [READS-1:0]          read_en,
    input  wire [READS*ADDRESS-1:0]  read_addr,
    output wire [READS*WIDTH-1:0]    read_data,
    input  wire [WRITES-1:0]         write_en,
    input  wire [WRITES*ADDRESS-1:0] write_addr,
    input  wire [WRITES*WIDTH-1:0]   write_data,
    input  wire [WRITES*LANES-1:0]   write_lanes
);
    localparam LANE = WIDTH / LANES;
    reg [WIDTH-1:0] mem [0:DEPTH-1];

    genvar r, w;
    generate
        for (r = 0; r < READS; r = r + 1) begin : read
            reg [WIDTH-1:0] data;
            always @(posedge clk)
                if (read_en[r]) data <= mem[read_addr[r*ADDRESS +: ADDRESS]];
            assign read_data[r*WIDTH +: WIDTH] = data;
        end
        for (w = 0; w < WRITES; w = w + 1) begin : write
            integer lane;
            always @(posedge clk)
                if (write_en[w])
                    for (lane = 0; lane < LANES; lane = lane + 1)
                        if (write_lanes[w*LANES + lane])
                            mem[write_addr[w*ADDRESS +: ADDRESS]][lane*LANE +: LANE]
                                <= write_data[w*WIDTH + lane*LANE +: LANE];
        end
    endgenerate

`ifdef VERILATOR
    // With +trace=PATH every write goes to the file PATH.NAME: cycle, address, lanes, data.
    longint now = 0;
    int trace = 0;
    string path;
    initial if ($value$plusargs("trace=%s", path)) trace = $fopen({path, ".", NAME}, "w");
    always @(posedge clk) begin
        now <= now + 1;
        if (trace != 0) begin
            for (int p = 0; p < WRITES; p = p + 1)
                if (write_en[p])
                    $fdisplay(trace, "%0d %0d %0h %0h", now, write_addr[p*ADDRESS +: ADDRESS],
                        write_lanes[p*LANES +: LANES], write_data[p*WIDTH +: WIDTH]);
            if (|write_en) $fflush(trace);
        end
    end
    final if (trace != 0) $fclose(trace);
`endif
endmodule
